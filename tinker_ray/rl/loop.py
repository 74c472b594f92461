"""The synchronous policy-gradient loop: rollouts, advantages, an optimizer step, new weights.

Knows clients, a pool and a run directory; neither Ray nor signals. Invariant: each batch is drawn
with exactly the weights that it then trains, and all draws follow from the seed and the step, so
that a resumed run goes on as the interrupted one would have.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.clients.training import TrainingClient
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.measure import Measure, kl_sample_train, measure
from tinker_ray.rl.outcome import FinishedGroup
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.record import StepRecord, Summary
from tinker_ray.rl.run_directory import RunDirectory
from tinker_ray.rl.transcript import Decode, first_of_each, render
from tinker_ray.rollouts import (
    Dataset,
    EnvGroupBuilder,
    RolloutFailedError,
    RolloutParams,
    center,
    derive_seed,
)
from tinker_ray.rollouts.datum import from_groups
from tinker_ray.rollouts.event import kind_of
from tinker_ray.telemetry import names
from tinker_ray.telemetry.trace import span
from tinker_ray.types import AdamParams

SHOWN_EXCERPTS = 6


@dataclass(frozen=True, slots=True)
class Update:
    """What one optimizer step did.

    Attributes:
        sampler: Samples from the new weights.
        loss: Of the batch, before the step.
        kl_sample_train: Between the sampler and the trainer, on the batch.
    """

    sampler: SamplingClient
    loss: float = 0.0
    kl_sample_train: float = 0.0


class Loop:
    """One run, from its first missing step to its summary."""

    def __init__(  # noqa: PLR0913 - the parts of a run, none of them optional
        self,
        config: RunConfig,
        *,
        dataset: Dataset,
        training: TrainingClient,
        pool: RolloutPool,
        directory: RunDirectory,
        progress: Progress,
        decode: Decode,
        mode: str,
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._training = training
        self._pool = pool
        self._directory = directory
        self._progress = progress
        self._decode = decode
        self._mode = mode
        self._began_s = time.monotonic() - directory.manifest.seconds

    async def run(self) -> Summary:
        """Do what is left of the run.

        Raises:
            RolloutFailedError: Not one group of a batch came to its end.
            TinkerError: The service failed.
        """
        sampler = await self._training.save_weights_and_get_sampling_client_async()
        await self._measure_before(sampler)
        accuracy: float | None = None
        for step in range(self._directory.manifest.steps_done, self._config.steps):
            record, sampler = await self._step(step, sampler)
            accuracy = record.eval_accuracy
            self._directory.append_step(record)
            self._progress.step(record, self._config.steps)
            reached = self._reaches_target(accuracy)
            if reached or self._is_due(step, self._config.checkpoint_every):
                await self._checkpoint(step + 1)
            if reached:
                break
        return await self._finish(sampler)

    async def _measure_before(self, sampler: SamplingClient) -> None:
        manifest = self._directory.manifest
        if manifest.accuracy_before is None:
            groups, measured = await self._evaluate(sampler, "before")
            self._directory.write_manifest(
                manifest.model_copy(update={"accuracy_before": measured.accuracy})
            )
            self._progress.say(f"held-out accuracy before training: {measured.accuracy:.3f}")
            self._show("before training", groups)

    async def _step(self, step: int, sampler: SamplingClient) -> tuple[StepRecord, SamplingClient]:
        began_s = time.monotonic()
        groups = await self._roll_out(step, sampler)
        measured, account = measure(groups), self._pool.account
        rolled_out_s = time.monotonic()
        update, num_constant_groups = await self._update(step, sampler, groups)
        ended_s = time.monotonic()
        eval_accuracy: float | None = None
        if self._config.eval_every and self._is_due(step, self._config.eval_every):
            _, evaluated = await self._evaluate(update.sampler, f"eval-{step + 1:04d}")
            eval_accuracy = evaluated.accuracy
        return StepRecord(
            step=step + 1,
            reward=measured.reward,
            accuracy=measured.accuracy,
            eval_accuracy=eval_accuracy,
            entropy=measured.entropy,
            kl_sample_train=update.kl_sample_train,
            loss=update.loss,
            num_constant_groups=num_constant_groups,
            num_dropped_groups=account.dropped.total(),
            num_tokens=measured.num_tokens,
            tokens_per_s=measured.num_tokens / (ended_s - began_s),
            peak_in_flight=account.peak_in_flight,
            rollout_s=rolled_out_s - began_s,
            train_s=ended_s - rolled_out_s,
            step_s=ended_s - began_s,
        ), update.sampler

    async def _roll_out(self, step: int, sampler: SamplingClient) -> list[FinishedGroup]:
        params = RolloutParams(
            max_tokens=self._config.max_tokens,
            temperature=self._config.temperature,
            seed=derive_seed(self._config.seed, "rollout", step),
        )
        what = f"step {step + 1}/{self._config.steps}: rollouts"
        groups = await self._gather(self._dataset.batch(step), sampler, params, what)
        title = f"step {step + 1}, drawn with the weights of step {step}"
        self._directory.write_transcript(
            f"step-{step + 1:04d}", render(title, groups, self._decode)
        )
        return groups

    async def _gather(
        self,
        builders: Sequence[EnvGroupBuilder],
        sampler: SamplingClient,
        params: RolloutParams,
        what: str,
    ) -> list[FinishedGroup]:
        """Run groups and put them into the order of their builders, so that sums do not vary."""
        groups: list[FinishedGroup] = []
        async for group in self._pool.run(builders, sampler, params):
            groups.append(group)
            in_flight = self._pool.in_flight
            self._progress.status(f"{what} {len(groups)}/{len(builders)}, {in_flight} in flight")
        if not groups:
            reason, detail = next(iter(self._pool.account.details.items()))
            raise RolloutFailedError(kind=kind_of(reason), stage="every rollout", detail=detail)
        return sorted(groups, key=lambda group: group.index)

    async def _update(
        self, step: int, sampler: SamplingClient, groups: Sequence[FinishedGroup]
    ) -> tuple[Update, int]:
        advantages = center(groups)
        data = from_groups(groups, advantages)
        if not data:
            return Update(sampler), advantages.num_constant_groups
        self._progress.status(f"step {step + 1}/{self._config.steps}: training")
        links = [group.carrier for group in groups if group.carrier]
        with span(names.TRAIN_STEP, attributes={names.STEP: step + 1}, links=links):
            output, _, new_sampler = await asyncio.gather(
                self._training.forward_backward(
                    data, self._config.loss_fn, self._config.loss_fn_config or None
                ),
                self._training.optim_step(
                    AdamParams(learning_rate=self._config.learning_rate_at(step))
                ),
                self._training.save_weights_and_get_sampling_client_async(),
            )
        update = Update(
            new_sampler, output.metrics.get("loss:sum", 0.0), kl_sample_train(data, output)
        )
        return update, advantages.num_constant_groups

    async def _evaluate(
        self, sampler: SamplingClient, name: str
    ) -> tuple[list[FinishedGroup], Measure]:
        """Draw at temperature 1 on held-out problems.

        The evaluations before and after the run share their seeds; those on the way have others, so
        that a run which ends at one of them is judged by fresh draws.
        """
        place = "ends" if name in {"before", "after"} else "steps"
        params = RolloutParams(
            max_tokens=self._config.max_tokens, seed=derive_seed(self._config.seed, "eval", place)
        )
        groups = await self._gather(self._dataset.held_out(), sampler, params, f"evaluation {name}")
        self._directory.write_transcript(name, render(f"held out, {name}", groups, self._decode))
        return groups, measure(groups)

    async def _checkpoint(self, steps_done: int) -> None:
        if self._directory.manifest.steps_done == steps_done:
            return
        self._progress.status(f"step {steps_done}/{self._config.steps}: checkpoint")
        saved = await self._training.save_state(f"step-{steps_done:04d}")
        self._directory.append_checkpoint(steps_done, saved.path)
        self._directory.write_manifest(
            self._directory.manifest.model_copy(
                update={
                    "steps_done": steps_done,
                    "checkpoint": saved.path,
                    "seconds": time.monotonic() - self._began_s,
                }
            )
        )
        await self._directory.delete_superfluous_checkpoints()

    async def _finish(self, sampler: SamplingClient) -> Summary:
        records = self._directory.steps()
        steps_done = records[-1].step if records else self._directory.manifest.steps_done
        await self._checkpoint(steps_done)
        groups, measured = await self._evaluate(sampler, "after")
        self._show("after training", groups)
        manifest = self._directory.manifest
        self._directory.plot()
        self._directory.plot_metrics()
        summary = Summary(
            accuracy_before=manifest.accuracy_before or 0.0,
            accuracy_after=measured.accuracy,
            steps=steps_done,
            seconds=round(time.monotonic() - self._began_s, 2),
            seed=self._config.seed,
            mode=self._mode,
            eval_episodes=measured.num_episodes,
            resumes=manifest.resumes,
            checkpoint=manifest.checkpoint,
            run_directory=str(self._directory.path),
        )
        self._directory.write_summary(summary)
        self._directory.write_manifest(manifest.model_copy(update={"finished": True}))
        return summary

    def _show(self, when: str, groups: Sequence[FinishedGroup]) -> None:
        excerpts = first_of_each(groups, self._decode, SHOWN_EXCERPTS)
        self._progress.excerpts(f"held-out problems, {when}:", excerpts)

    def _is_due(self, step: int, every: int) -> bool:
        return (step + 1) % every == 0 or step + 1 == self._config.steps

    def _reaches_target(self, accuracy: float | None) -> bool:
        target = self._config.target_accuracy
        return target is not None and accuracy is not None and accuracy >= target
