"""Evaluations beside training: a snapshot of the weights is judged while the next steps train.

Knows an evaluator, snapshots and the run directory, nothing of training. Invariants: at most one
evaluation runs at a time; each is written down with the step whose weights it judged; one that
failed is told once, when it is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.evaluation import Evaluator
from tinker_ray.rl.measure import Measure
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.run_directory import RunDirectory

SampleFrom = Callable[[str], Awaitable[SamplingClient | None]]
"""Opens a checkpoint to sample from it; None if it is gone."""


@dataclass(frozen=True, slots=True)
class Examined:
    """An evaluation that came to its end.

    Attributes:
        step: Optimizer steps in the weights.
        sampler: Draws from them.
        measure: What came of it.
        eval_s: How long it took.
        ended_s: When it ended, in seconds of the run.
    """

    step: int
    sampler: SamplingClient
    measure: Measure
    eval_s: float
    ended_s: float


class Examiner:
    """Runs the evaluations on the way, one at a time.

    Args:
        config: The target, and what becomes of a failure.
        evaluator: Carries an evaluation out.
        directory: Gets the results.
        progress: Shows them.
        began_s: When the run began, on the monotonic clock.

    Attributes:
        step: The step whose weights are being judged, or were and nobody asked yet; None if none.
    """

    def __init__(
        self,
        config: RunConfig,
        evaluator: Evaluator,
        directory: RunDirectory,
        progress: Progress,
        began_s: float,
    ) -> None:
        self.step: int | None = None
        self._config = config
        self._evaluator = evaluator
        self._directory = directory
        self._progress = progress
        self._began_s = began_s
        self._task: asyncio.Task[Examined] | None = None

    @property
    def is_done(self) -> bool:
        """Whether an evaluation has ended whose outcome nobody has taken."""
        return self._task is not None and self._task.done()

    async def take_up(self, sampler: SamplingClient, sample_from: SampleFrom | None) -> None:
        """Begin again with the evaluation that was cut off when the run ended before.

        Args:
            sampler: Draws from the weights with which the run goes on.
            sample_from: Opens weights of an earlier step.
        """
        judged = {record.step: record.eval_accuracy for record in self._directory.steps()}
        due = [step for step in judged if self._config.is_due(step, self._config.eval_every)]
        if not due or judged[due[-1]] is not None:
            return
        step, checkpoint = due[-1], self._directory.checkpoint_of(due[-1])
        snapshot: SamplingClient | None = None
        if step == self._directory.manifest.steps_done:
            snapshot = sampler
        elif checkpoint is not None and sample_from is not None:
            snapshot = await sample_from(checkpoint)
        if snapshot is None:
            self._progress.say(f"the weights of step {step} are gone: it stays without evaluation")
            return
        if self._directory.retention is not None and checkpoint is not None:
            self._directory.retention.hold(checkpoint)
        self.begin(step, snapshot)

    def begin(self, step: int, sampler: SamplingClient) -> None:
        """Begin the evaluation of the weights after a step; the one before has been taken."""
        if self._task is not None:
            raise RuntimeError(f"step {step}: the evaluation of step {self.step} is not taken")
        self.step = step
        self._task = asyncio.get_running_loop().create_task(self._examine(step, sampler))

    async def take(self) -> Examined | None:
        """Wait for the evaluation, if there is one, and write it down.

        Returns:
            The evaluation, if it reached the target of the run.

        Raises:
            TinkerError: It failed, and the settings want a failure to end the run.
        """
        task, step = self._task, self.step
        if task is None or step is None:
            return None
        try:
            examined = await task
        except Exception as error:
            self._progress.say(f"the evaluation of step {step} failed: {error}")
            if self._config.eval_failure == "raise":
                raise
            await self._directory.release_checkpoint(step)
            return None
        finally:
            self._task = self.step = None
        accuracy = examined.measure.accuracy
        await self._directory.add_evaluation(
            step, accuracy=accuracy, eval_s=examined.eval_s, ended_s=examined.ended_s
        )
        self._progress.evaluated(step, self._config.steps, accuracy)
        return examined if self._config.reaches_target(accuracy) else None

    async def _examine(self, step: int, sampler: SamplingClient) -> Examined:
        began_s = time.monotonic()
        is_alone = not self._config.eval_beside
        measured = await self._evaluator.evaluate(sampler, f"eval-{step:04d}", is_alone=is_alone)
        ended_s = time.monotonic()
        return Examined(step, sampler, measured, ended_s - began_s, ended_s - self._began_s)

    async def aclose(self) -> None:
        """Cancel what is under way; idempotent."""
        task, self._task, self.step = self._task, None, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
