"""The policy-gradient loop: groups, an update, a line in the record, now and then a checkpoint.

Whether it is synchronous is a matter of its source of groups; evaluations run beside it. Knows
clients, a pool and a run directory; neither Ray nor signals. Invariants: what the run directory
says of steps and groups is what the checkpoint of its manifest holds, or is taken back before the
run goes on; a run that reached its target ends with the weights that did.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.clients.training import TrainingClient
from tinker_ray.errors import APIStatusError, RequestFailedError, TinkerError
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.evaluation import Evaluator
from tinker_ray.rl.examiner import Examined, Examiner, SampleFrom
from tinker_ray.rl.measure import measure
from tinker_ray.rl.outcome import FinishedGroup
from tinker_ray.rl.policy import LivePolicy
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.record import StepRecord, Summary
from tinker_ray.rl.reference_kl import ReferencePenalty
from tinker_ray.rl.run_directory import RunDirectory
from tinker_ray.rl.source import BatchSource, GroupSource, StreamSource
from tinker_ray.rl.transcript import Decode, fetch_shown, render
from tinker_ray.rl.update import Update, Updater
from tinker_ray.rollouts import Dataset, RolloutFailedError
from tinker_ray.rollouts.failure import FETCH, LOST

LABEL = "train"
WEIGHT = 3.0
"""What training's rollouts get of scarce permits, beside evaluation's."""

Reopen = Callable[[TrainingClient, TinkerError], Awaitable[TrainingClient | None]]
"""Opens the last checkpoint if an error means that a model is lost; None if it does not."""


class Loop:
    """One run, from its first missing step to its summary."""

    def __init__(  # noqa: PLR0913 - the parts of a run
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
        penalty: ReferencePenalty | None = None,
        reopen: Reopen | None = None,
        sample_from: SampleFrom | None = None,
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._training = training
        self._pool = pool
        self._directory = directory
        self._progress = progress
        self._decode = decode
        self._mode = mode
        self._penalty = penalty
        self._reopen = reopen
        self._sample_from = sample_from
        self._evaluator = Evaluator(
            config,
            dataset=dataset,
            pool=pool,
            directory=directory,
            progress=progress,
            decode=decode,
        )
        self._began_s = time.monotonic() - directory.manifest.seconds

    async def run(self) -> Summary:
        """Do what is left of the run.

        Raises:
            RolloutFailedError: Not one group of a batch came to its end.
            ModelLostError: The service lost the model, and it cannot be restored.
            TinkerError: The service failed.
        """
        while True:
            try:
                sampler = await self._training.save_weights_and_get_sampling_client_async()
                await self._measure_before(sampler)
                async with aclosing(self._open_examiner()) as examiner:
                    sampler = await self._train(sampler, examiner)
                return await self._finish(sampler)
            except (APIStatusError, RequestFailedError, RolloutFailedError) as error:
                await self._restore(error)

    async def _measure_before(self, sampler: SamplingClient) -> None:
        manifest = self._directory.manifest
        if manifest.accuracy_before is None:
            measured = await self._evaluator.evaluate(sampler, "before")
            self._directory.write_manifest(
                manifest.model_copy(update={"accuracy_before": measured.accuracy})
            )
            self._progress.say(f"held-out accuracy before training: {measured.accuracy:.3f}")

    def _open_examiner(self) -> Examiner:
        return Examiner(
            self._config, self._evaluator, self._directory, self._progress, self._began_s
        )

    async def _train(self, sampler: SamplingClient, examiner: Examiner) -> SamplingClient:
        """Do the steps that are left; returns what draws from the last of the run."""
        records = self._directory.steps()
        if records and self._config.reaches_target(records[-1].eval_accuracy):
            return sampler  # cut off between its target and its summary
        await examiner.take_up(sampler, self._sample_from)
        if not self._config.eval_beside and (reached := await examiner.take()):
            return self._go_back(reached)
        first = self._directory.manifest.steps_done
        updater = Updater(self._config, self._training, self._penalty)
        async with aclosing(self._open_source(sampler, first)) as source:
            for step in range(first, self._config.steps):
                record, sampler = await self._step(step, sampler, source, updater)
                self._directory.append_step(record)
                self._progress.step(record, self._config.steps)
                reached = await self._judge_and_save(step + 1, sampler, examiner)
                if reached is not None:
                    return self._go_back(reached)
        self._progress.status("waiting for the last evaluation")
        reached = await examiner.take()
        return sampler if reached is None else self._go_back(reached)

    async def _judge_and_save(
        self, steps_done: int, sampler: SamplingClient, examiner: Examiner
    ) -> Examined | None:
        """Evaluate and save what is due after a step.

        Returns:
            The evaluation that reached the target, of this step or an earlier one.
        """
        is_judged = self._config.is_due(steps_done, self._config.eval_every)
        reached: Examined | None = None
        if is_judged or examiner.is_done:
            if not examiner.is_done and examiner.step is not None:
                self._progress.status(f"waiting for the evaluation of step {examiner.step}")
            reached = await examiner.take()
        if reached is None and is_judged:
            examiner.begin(steps_done, sampler)
            if not self._config.eval_beside:
                reached = await examiner.take()
        is_here = reached is not None and reached.step == steps_done
        is_due = self._config.is_due(steps_done, self._config.checkpoint_every)
        if is_here or (reached is None and (is_due or examiner.step == steps_done)):
            await self._checkpoint(steps_done, is_judged=examiner.step != steps_done)
        return reached

    def _go_back(self, reached: Examined) -> SamplingClient:
        """End the run where its target was reached."""
        meanwhile = self._directory.steps()[-1].step - reached.step
        if meanwhile:
            self._progress.say(
                f"step {reached.step} reached the target: {meanwhile} later steps are taken back"
            )
        self._directory.go_back(reached.step)
        return reached.sampler

    def _open_source(self, sampler: SamplingClient, version: int) -> GroupSource:
        policy = LivePolicy(sampler.with_label(LABEL, WEIGHT), version)
        if self._config.max_staleness is None:
            return BatchSource(self._config, self._dataset, self._pool, policy)
        ended = self._directory.groups()
        return StreamSource(self._config, self._dataset, self._pool, policy, ended)

    async def _step(
        self, step: int, sampler: SamplingClient, source: GroupSource, updater: Updater
    ) -> tuple[StepRecord, SamplingClient]:
        began_s = time.monotonic()
        update = await updater.train(step, self._watched(step, source), source.groups_per_step)
        for group in update.lost:
            source.ledger.lose(group)
        if update.lost and not update.groups:  # a step on nothing was taken: it is taken back
            raise RolloutFailedError(kind="gone", stage=FETCH, detail=LOST)
        source.ledger.require_groups()
        sampler = update.sampler or sampler
        source.publish(sampler.with_label(LABEL, WEIGHT), step + 1)
        ended_s = time.monotonic()
        record = self._record(step, update, source, began_s, ended_s)
        await fetch_shown(update.groups)
        self._write_transcript(step, update)
        return record, sampler

    async def _watched(self, step: int, source: GroupSource) -> AsyncIterator[FinishedGroup]:
        what = f"step {step + 1}/{self._config.steps}"
        count = 0
        async with aclosing(source.groups(step)) as groups:
            async for group in groups:
                count += 1
                in_flight = self._pool.in_flight
                self._progress.status(
                    f"{what}: rollouts {count}/{source.groups_per_step}, {in_flight} in flight"
                )
                yield group
        self._progress.status(f"{what}: training")

    def _record(
        self, step: int, update: Update, source: GroupSource, began_s: float, ended_s: float
    ) -> StepRecord:
        """Write down a step and its groups."""
        measured, ledger = measure(update.groups), source.ledger
        ages = [step - group.version for group in update.groups]
        ended = ledger.close(step)
        self._directory.append_groups(ended)
        return StepRecord(
            step=step + 1,
            reward=measured.reward,
            accuracy=measured.accuracy,
            entropy=measured.entropy,
            kl_sample_train=update.kl_sample_train,
            loss=update.loss,
            kl_reference=update.kl_reference,
            staleness_mean=sum(ages) / len(ages),
            staleness_max=max(ages),
            num_constant_groups=update.num_constant_groups,
            num_dropped_groups=sum(record.dropped is not None for record in ended),
            num_tokens=measured.num_tokens,
            tokens_per_s=measured.num_tokens / (ended_s - began_s),
            peak_in_flight=ledger.account.peak_in_flight,
            rollout_s=update.gathered_s - began_s,
            train_s=ended_s - update.gathered_s,
            step_s=ended_s - began_s,
            elapsed_s=ended_s - self._began_s,
            selection=ledger.selection.take().metrics(),
        )

    def _write_transcript(self, step: int, update: Update) -> None:
        versions = sorted({group.version for group in update.groups})
        title = f"step {step + 1}, drawn with the weights of step {', '.join(map(str, versions))}"
        text = render(title, update.groups, self._decode)
        self._directory.write_transcript(f"step-{step + 1:04d}", text)

    async def _checkpoint(self, steps_done: int, *, is_judged: bool = True) -> None:
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
        await self._directory.delete_superfluous_checkpoints(is_judged=is_judged)

    async def _restore(self, error: TinkerError) -> None:
        """Go back to the last checkpoint.

        Raises:
            TinkerError: The error again, if it is no matter of the model.
            ModelLostError: The model cannot be restored.
        """
        reopened = None if self._reopen is None else await self._reopen(self._training, error)
        if reopened is None:
            raise error
        self._training = reopened

    async def _finish(self, sampler: SamplingClient) -> Summary:
        records = self._directory.steps()
        steps_done = records[-1].step if records else self._directory.manifest.steps_done
        await self._checkpoint(steps_done)
        measured = await self._evaluator.evaluate(sampler, "after")
        manifest = self._directory.manifest
        self._directory.write_staleness()
        self._directory.plot()
        self._directory.plot_metrics(self._directory.staleness())
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
