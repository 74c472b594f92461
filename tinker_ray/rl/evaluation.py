"""How good a policy is on problems that it never trains on.

Knows the pool and the dataset, nothing of training. Invariant: the evaluations before and after a
run share their seeds; those on the way have others, so that a run which ends at one of them is
judged by fresh draws.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.measure import Measure, measure
from tinker_ray.rl.outcome import FinishedGroup
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.run_directory import RunDirectory
from tinker_ray.rl.source import StepLedger
from tinker_ray.rl.transcript import Decode, fetch_shown, first_of_each, render
from tinker_ray.rollouts import Dataset, RolloutParams, derive_seed

SHOWN_EXCERPTS = 6
LABEL = "eval"
WEIGHT = 1.0
"""What evaluation gets of scarce permits, beside training's."""


class Evaluator:
    """Draws at temperature 1 on held-out problems and writes down what came of it."""

    def __init__(  # noqa: PLR0913 - the parts of an evaluation, none of them optional
        self,
        config: RunConfig,
        *,
        dataset: Dataset,
        pool: RolloutPool,
        directory: RunDirectory,
        progress: Progress,
        decode: Decode,
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._pool = pool
        self._directory = directory
        self._progress = progress
        self._decode = decode

    async def evaluate(
        self, sampler: SamplingClient, name: str, *, is_alone: bool = True
    ) -> Measure:
        """Evaluate a policy.

        Args:
            sampler: Draws from it.
            name: ``before``, ``after``, or any other on the way.
            is_alone: Whether nothing else has a status to show meanwhile.

        Raises:
            RolloutFailedError: Not one group came to its end.
        """
        groups = await self._gather(sampler.with_label(LABEL, WEIGHT), name, is_alone=is_alone)
        await fetch_shown(groups)
        self._directory.write_transcript(name, render(f"held out, {name}", groups, self._decode))
        if name in {"before", "after"}:
            excerpts = first_of_each(groups, self._decode, SHOWN_EXCERPTS)
            self._progress.excerpts(f"held-out problems, {name} training:", excerpts)
        return measure(groups)

    async def _gather(
        self, sampler: SamplingClient, name: str, *, is_alone: bool
    ) -> Sequence[FinishedGroup]:
        place = "ends" if name in {"before", "after"} else "steps"
        params = RolloutParams(
            max_tokens=self._config.max_tokens, seed=derive_seed(self._config.seed, "eval", place)
        )
        builders, ledger = self._dataset.held_out(), StepLedger()
        groups: list[FinishedGroup] = []
        async for group in self._pool.run(builders, sampler, params, on_drop=ledger.drop):
            groups.append(ledger.deliver(group))
            if is_alone:
                self._progress.status(f"evaluation {name} {len(groups)}/{len(builders)}")
        ledger.require_groups()
        return sorted(groups, key=lambda group: group.index)
