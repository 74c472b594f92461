"""The loop of runs on given examples: some steps are always on their way, answered in order.

Knows an objective, a dataset and a run directory; neither Ray nor signals. Invariants: operations
are sent in the order of the steps, so that a checkpoint holds exactly the steps before it; the
manifest speaks of a checkpoint only once the service has it and its steps are written down.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.training import TrainingClient
from tinker_ray.rl.examples import ExampleDataset
from tinker_ray.rl.logger import Logger
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.retention import Retention
from tinker_ray.rl.run_directory import RunDirectory
from tinker_ray.rl.supervised_config import ExamplesConfig
from tinker_ray.types import AdamParams, OptimStepResponse, SaveWeightsResponse

T_contra = TypeVar("T_contra", contravariant=True)
T = TypeVar("T")
Metrics = dict[str, float]

EVALUATED = "eval_"
"""What stands before the name of a metric that was measured on held-out examples."""
JUDGED_BY = "eval_loss"
"""The metric by which a checkpoint is the best one: the lowest."""


class Objective(Protocol[T_contra]):
    """What is done with a batch."""

    async def train(self, examples: Sequence[T_contra]) -> APIFuture[Metrics]:
        """Send a forward_backward; its place among the operations is taken when this returns."""
        ...

    async def evaluate(self, examples: Sequence[T_contra]) -> APIFuture[Metrics]:
        """Send a forward pass, in the same way."""
        ...


class ExamplesSummary(BaseModel):
    """``summary.json``: what a run on examples came to.

    Attributes:
        kind: Of the run.
        before: Metrics on held-out examples before training; empty without such examples.
        after: The same, after it.
        steps: Optimizer steps.
        seconds: Over all resumes.
        seed: That of the settings.
        mode: ``local`` or ``cluster``.
        resumes: How often the run was gone on with.
        checkpoint: ``tinker://`` path to train on from.
        sampler_weights: ``tinker://`` path to sample from.
        run_directory: The folder.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    before: Metrics
    after: Metrics
    steps: int
    seconds: float
    seed: int
    mode: str
    resumes: int
    checkpoint: str | None
    sampler_weights: str
    run_directory: str


@dataclass(frozen=True, slots=True)
class _Sent:
    """A step on its way."""

    step: int
    learning_rate: float
    trained: APIFuture[Metrics]
    applied: APIFuture[OptimStepResponse]
    evaluated: APIFuture[Metrics] | None
    saved: APIFuture[SaveWeightsResponse] | None


class ExamplesLoop(Generic[T]):
    """One run, from its first missing step to its summary."""

    def __init__(  # noqa: PLR0913 - the parts of a run, none of them optional
        self,
        config: ExamplesConfig,
        *,
        kind: str,
        dataset: ExampleDataset[T],
        objective: Objective[T],
        training: TrainingClient,
        directory: RunDirectory,
        logger: Logger,
        retention: Retention,
        progress: Progress,
        mode: str,
    ) -> None:
        self._config = config
        self._kind = kind
        self._dataset = dataset
        self._objective = objective
        self._training = training
        self._directory = directory
        self._logger = logger
        self._retention = retention
        self._progress = progress
        self._mode = mode
        self._held_out = list(dataset.held_out())
        self._began_s = time.monotonic() - directory.manifest.seconds
        self._ended_s = time.monotonic()

    async def run(self) -> ExamplesSummary:
        """Do what is left of the run.

        Raises:
            TinkerError: The service failed.
        """
        await self._measure_before()
        on_their_way: deque[_Sent] = deque()
        self._ended_s = time.monotonic()
        for step in range(self._directory.manifest.steps_done, self._config.steps):
            on_their_way.append(await self._send(step))
            if len(on_their_way) > self._config.steps_ahead:
                await self._settle(on_their_way.popleft())
        while on_their_way:
            await self._settle(on_their_way.popleft())
        return await self._finish()

    async def _measure_before(self) -> None:
        if self._held_out and not self._directory.rows():
            measured = await (await self._objective.evaluate(self._held_out))
            metrics = _evaluated(measured)
            self._logger.log(0, metrics)
            self._progress.say(f"before training  {_shown(metrics)}")

    async def _send(self, step: int) -> _Sent:
        """Send all operations of a step without waiting for any of them."""
        rate = self._config.learning_rate_at(step)
        trained = await self._objective.train(self._dataset.batch(step))
        applied = self._training.optim_step(AdamParams(learning_rate=rate))
        evaluated: APIFuture[Metrics] | None = None
        if self._held_out and self._is_due(step, self._config.eval_every):
            evaluated = await self._objective.evaluate(self._held_out)
        saved: APIFuture[SaveWeightsResponse] | None = None
        if self._is_due(step, self._config.checkpoint_every):
            saved = self._training.save_state(f"step-{step + 1:04d}")
        return _Sent(step, rate, trained, applied, evaluated, saved)

    async def _settle(self, sent: _Sent) -> None:
        metrics = {**await sent.trained, "learning_rate": sent.learning_rate}
        await sent.applied
        now_s = time.monotonic()
        metrics["step_s"], self._ended_s = now_s - self._ended_s, now_s
        metrics["tokens_per_s"] = metrics["num_tokens"] / max(metrics["step_s"], 1e-9)
        if sent.evaluated is not None:
            metrics |= _evaluated(await sent.evaluated)
        self._logger.log(sent.step + 1, metrics)
        self._progress.say(f"step {sent.step + 1:>4}/{self._config.steps}  {_shown(metrics)}")
        if sent.saved is not None:
            await self._written(sent.step + 1, (await sent.saved).path, metrics.get(JUDGED_BY))

    async def _written(self, steps_done: int, path: str, judged: float | None) -> None:
        self._directory.append_checkpoint(steps_done, path)
        manifest = self._directory.manifest
        update = {
            "steps_done": steps_done,
            "checkpoint": path,
            "seconds": time.monotonic() - self._began_s,
        }
        self._directory.write_manifest(manifest.model_copy(update=update))
        await self._retention.add(path, None if judged is None else -judged)

    async def _finish(self) -> ExamplesSummary:
        self._progress.status("saving weights to sample from")
        weights = await self._training.save_weights_for_sampler("final")
        rows = [row for row in self._directory.rows() if JUDGED_BY in row]
        manifest = self._directory.manifest
        summary = ExamplesSummary(
            kind=self._kind,
            before=_only_evaluated(rows[0]) if rows else {},
            after=_only_evaluated(rows[-1]) if rows else {},
            steps=self._config.steps,
            seconds=round(time.monotonic() - self._began_s, 2),
            seed=self._config.seed,
            mode=self._mode,
            resumes=manifest.resumes,
            checkpoint=manifest.checkpoint,
            sampler_weights=weights.path,
            run_directory=str(self._directory.path),
        )
        self._directory.plot_metrics()
        self._directory.write_summary(summary)
        self._directory.write_manifest(manifest.model_copy(update={"finished": True}))
        return summary

    def _is_due(self, step: int, every: int) -> bool:
        return step + 1 == self._config.steps or (every > 0 and (step + 1) % every == 0)


def _evaluated(metrics: Mapping[str, float]) -> Metrics:
    return {f"{EVALUATED}{name}": value for name, value in metrics.items() if name != "num_tokens"}


def _only_evaluated(row: Mapping[str, float | None]) -> Metrics:
    return {
        name: value
        for name, value in row.items()
        if name.startswith(EVALUATED) and value is not None
    }


def _shown(metrics: Mapping[str, float]) -> str:
    hidden = {"num_tokens", "step_s"}
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name not in hidden)
