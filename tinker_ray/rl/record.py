"""What a run writes down: a line per step and group, its place for a resume, the summary.

Knows nothing of files. Invariant: all of it is JSON of plain numbers and strings.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class StepRecord(_Record):
    """One line of ``metrics.jsonl``.

    Attributes:
        step: From 1.
        reward: Mean return of the training episodes.
        accuracy: Share of them that solved their problem.
        eval_accuracy: The same on held-out problems, drawn with the weights after this step; None
            if there was no evaluation, or it has not ended yet.
        eval_s: How long the evaluation took.
        eval_elapsed_s: When it ended, as ``elapsed_s``.
        entropy: Per token, estimated from the sampled logprobs.
        kl_sample_train: Between sampler and trainer, estimated on the batch.
        loss: The batch's loss as the service reports it.
        kl_reference: Mean over the sampled tokens of the log ratio to the base model; None without
            a ``kl_coefficient``.
        staleness_mean: Optimizer steps between the weights that drew a group and those it trained.
        staleness_max: The highest.
        num_constant_groups: Groups that taught nothing, since all their episodes earned the same.
        num_dropped_groups: Groups that did not come.
        num_tokens: Sampled tokens.
        tokens_per_s: Sampled tokens over the duration of the step.
        peak_in_flight: Most groups that ran at once.
        rollout_s: Time for the rollouts.
        train_s: Time for forward_backward, optim_step and the new sampling client.
        step_s: Time for all of the step, evaluation excluded.
        elapsed_s: Seconds of the run until the step was done, over all resumes.
        selection: What was kept and what was cut (see
            :meth:`tinker_ray.rollouts.SelectionAccount.metrics`).
    """

    step: int
    reward: float
    accuracy: float
    eval_accuracy: float | None = None
    eval_s: float | None = None
    eval_elapsed_s: float | None = None
    entropy: float
    kl_sample_train: float
    loss: float
    kl_reference: float | None = None
    staleness_mean: float = 0.0
    staleness_max: int = 0
    num_constant_groups: int
    num_dropped_groups: int
    num_tokens: int
    tokens_per_s: float
    peak_in_flight: int
    rollout_s: float
    train_s: float
    step_s: float
    elapsed_s: float = 0.0
    selection: dict[str, float] = Field(default_factory=dict)

    @field_validator("*", mode="before")
    @classmethod
    def _null_is_not_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Read what JSON has no word for, so that a loss that diverged can be read again."""
        is_required = (
            info.field_name is not None and cls.model_fields[info.field_name].is_required()
        )
        return math.nan if value is None and is_required else value


class GroupRecord(_Record):
    """One line of ``groups.jsonl``: a group that was trained on, or will not come.

    Attributes:
        step: At which it was trained on, or during which it was dropped, from 1.
        index: Its number in the run: the same problem and seed whenever it is run.
        key: Of its builder (see :func:`tinker_ray.rollouts.quarantine.key_of`).
        attempt: How many attempts had failed before; for a dropped group, how many there were.
        version: Optimizer steps in the weights that drew it; None for a dropped group.
        dropped: Why it was not trained on; None if it was.
    """

    step: int
    index: int
    key: str | None = None
    attempt: int = 0
    version: int | None = None
    dropped: str | None = None


class Manifest(_Record):
    """Where a run stands: enough to go on with it.

    All draws and problems follow from the seed and the number of a group. So the groups of
    ``groups.jsonl`` up to ``steps_done`` are the cursor of the dataset and the state of every
    random generator at once: what is not among them is run, or run again.

    Attributes:
        steps_done: Optimizer steps in the checkpoint.
        checkpoint: ``tinker://`` path of weights and optimizer; None before the first one.
        accuracy_before: On held-out problems, before training; None if not yet measured.
        seconds: Time spent until here, over all resumes.
        resumes: How often an interrupted run was gone on with.
        finished: Whether nothing is left to do.
    """

    version: Literal[1] = 1
    steps_done: int = 0
    checkpoint: str | None = None
    accuracy_before: float | None = None
    seconds: float = 0.0
    resumes: int = 0
    finished: bool = False


class Summary(_Record):
    """``summary.json``: what a run came to."""

    accuracy_before: float
    accuracy_after: float
    steps: int
    seconds: float
    seed: int
    mode: str
    eval_episodes: int
    resumes: int
    checkpoint: str | None
    run_directory: str
