"""The settings of an RL run: frozen, from Python, a TOML file or the command line.

Knows nothing of where the run happens (local or cluster). Invariant: two runs with equal settings
do the same work, so an unfinished run can be gone on with by whoever has equal settings.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.logger import TrackerNames
from tinker_ray.rollouts.far import FAR_BYTES

EvalFailure = Literal["raise", "report"]
PolicyLoss = Literal["importance_sampling", "ppo", "cispo"]


class RunConfig(BaseModel):
    """What to train, on what, for how long.

    Attributes:
        base_url: The service; ``embedded`` starts one on this machine.
        base_model: The model to adapt.
        environment: ``adder``, or ``module:function`` that takes this object and a tokenizer and
            returns a dataset (see :class:`tinker_ray.rollouts.Dataset`).
        seed: Decides problems, adapters' initial weights and every draw.
        steps: Optimizer steps.
        prompts_per_step: Groups per step.
        samples_per_prompt: Episodes per group.
        max_tokens: Longest action.
        temperature: Of the rollouts; evaluation draws at 1.
        rank: Of the LoRA adapter.
        learning_rate: Of AdamW, at the first step.
        learning_rate_end: The share of it that is left at the last step; it falls evenly.
        max_staleness: By how many steps the weights that drew a group may be older than those that
            it trains; rollouts go on while training. None is the synchronous loop. 0 gives the same
            numbers, but evaluations do not hold the rollouts up.
        oversample: Groups that run beyond those that a step needs; the slowest are cancelled. Only
            with ``max_staleness``.
        substeps: Optimizer steps per batch, each on an equal share of its groups.
        minibatches: Calls of forward_backward per optimizer step. With more than one, each is sent
            as soon as its groups are there, and the gradients add up to those of one call.
        kl_coefficient: How much the log ratio to the base model counts against the advantage of
            each token; 0 asks for no reference.
        loss_fn: The policy-gradient loss.
        loss_fn_config: Its settings, such as clip thresholds.
        eval_every: Steps between evaluations; 0 evaluates before and after only.
        eval_beside: Whether an evaluation judges a snapshot while the next steps train, one at a
            time. Each evaluated step is then a checkpoint, too. False makes training wait.
        eval_failure: What becomes of a run whose evaluation on the way fails: ``raise`` ends it
            with that error after the step under way, ``report`` says so and goes on.
        eval_problems: Held-out problems.
        eval_samples: Episodes per held-out problem.
        checkpoint_every: Steps between checkpoints.
        target_accuracy: Ends the run early at an evaluation that reaches it, with the weights that
            it judged: steps that were trained meanwhile are taken back.
        workers: Rollout workers.
        groups_per_worker: Groups that a worker runs at once.
        far_bytes: On a cluster, from which size on, in bytes of tokens and logprobs, the
            trajectories of a group go from its worker to the training actor without passing
            through this process; None sends all through it.
        keep_checkpoints: How many are kept beside the one with the best held-out accuracy; None
            keeps all.
        loggers: Trackers beside ``metrics.jsonl``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = "embedded"
    base_model: str = "tinker-ray/tiny-adder"
    environment: str = "adder"
    seed: int = Field(default=0, ge=0)
    steps: int = Field(default=40, ge=1)
    prompts_per_step: int = Field(default=64, ge=1)
    samples_per_prompt: int = Field(default=8, ge=1)
    max_tokens: int = Field(default=8, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    rank: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    learning_rate_end: float = Field(default=0.1, ge=0, le=1)
    max_staleness: int | None = Field(default=None, ge=0)
    oversample: int = Field(default=0, ge=0)
    substeps: int = Field(default=1, ge=1)
    minibatches: int = Field(default=1, ge=1)
    kl_coefficient: float = Field(default=0.0, ge=0)
    loss_fn: PolicyLoss = "importance_sampling"
    loss_fn_config: dict[str, float] = Field(default_factory=dict)
    eval_every: int = Field(default=5, ge=0)
    eval_beside: bool = True
    eval_failure: EvalFailure = "raise"
    eval_problems: int = Field(default=128, ge=1)
    eval_samples: int = Field(default=4, ge=1)
    checkpoint_every: int = Field(default=5, ge=1)
    target_accuracy: float | None = Field(default=None, gt=0, le=1)
    workers: int = Field(default=2, ge=1)
    groups_per_worker: int = Field(default=32, ge=1)
    far_bytes: int | None = Field(default=FAR_BYTES, ge=0)
    keep_checkpoints: int | None = Field(default=None, ge=1)
    loggers: TrackerNames = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.oversample and self.max_staleness is None:
            raise ValueError(
                f"oversample={self.oversample} needs max_staleness: 0 keeps the run on-policy"
            )
        return self

    def reaches_target(self, accuracy: float | None) -> bool:
        """Say whether an evaluation ends the run."""
        target = self.target_accuracy
        return target is not None and accuracy is not None and accuracy >= target

    def is_due(self, steps_done: int, every: int) -> bool:
        """Say whether something is done after so many steps: every so often, and at the end."""
        return every > 0 and (steps_done % every == 0 or steps_done == self.steps)

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        progress = step / max(1, self.steps - 1)
        return self.learning_rate * (1 - (1 - self.learning_rate_end) * progress)


def load(path: Path | None = None, overrides: Mapping[str, object] | None = None) -> RunConfig:
    """Read settings from a TOML file, if given; overrides that are not None win over it.

    Raises:
        ConfigurationError: The file cannot be read, or a setting is unknown or out of range.
    """
    values: dict[str, object] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"cannot read {path}: {error}") from error
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        return RunConfig.model_validate({**values, **given})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise ConfigurationError(f"settings of the run: {problems}") from error
