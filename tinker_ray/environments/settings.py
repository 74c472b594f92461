"""What a dataset needs of the settings of a run, such as ``tinker_ray.rl.RunConfig``.

Knows nothing of runs. Invariant: only read.
"""

from __future__ import annotations

from typing import Protocol


class TaskSettings(Protocol):
    """How many problems, for how many episodes, drawn from which seed."""

    @property
    def seed(self) -> int:
        """Decides the training problems."""
        ...

    @property
    def prompts_per_step(self) -> int:
        """Groups of a batch."""
        ...

    @property
    def samples_per_prompt(self) -> int:
        """Episodes of a training group."""
        ...

    @property
    def eval_problems(self) -> int:
        """Groups to evaluate on."""
        ...

    @property
    def eval_samples(self) -> int:
        """Episodes of an evaluation group."""
        ...
