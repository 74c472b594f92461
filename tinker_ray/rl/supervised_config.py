"""The settings of runs on given examples: supervised fine-tuning and preferences.

Knows nothing of what the examples are. Invariant: as with RL runs, equal settings mean equal work.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.config import load as load_rl
from tinker_ray.rl.logger import TrackerNames

Schedule = Literal["linear", "cosine", "constant"]


class ExamplesConfig(BaseModel):
    """What both kinds have in common.

    Attributes:
        base_url: The service; ``embedded`` starts one on this machine.
        base_model: The model to adapt.
        initial_weights: ``tinker://`` path of a training checkpoint to begin with, such as the last
            one of an earlier run; None for a fresh adapter.
        dataset: ``adder``, the path of a ``.jsonl`` file, or ``module:function`` that takes this
            object and a tokenizer and returns a dataset.
        held_out: Path of a ``.jsonl`` file to evaluate on; None takes ``held_out_share`` of the
            examples of ``dataset`` away for that. Other datasets know theirs by themselves.
        held_out_share: The share of the examples of a file that is never trained on.
        max_length: Longest example in tokens; what is longer is refused, not cut.
        seed: Decides the order of the examples and the adapter's initial weights.
        steps: Optimizer steps; the examples are gone through as often as that takes.
        batch_size: Examples per step.
        rank: Of the LoRA adapter.
        learning_rate: Of AdamW, its highest.
        schedule: How it falls from there.
        learning_rate_end: The share of it that is left at the last step.
        warmup_steps: Steps in which it rises evenly to its highest.
        eval_every: Steps between evaluations; 0 evaluates before and after only.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: How many of them are kept beside the best; None keeps all.
        steps_ahead: Steps that are sent before the first of them is answered.
        loggers: Trackers beside ``metrics.jsonl``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = "embedded"
    base_model: str = "tinker-ray/tiny-adder"
    initial_weights: str | None = None
    dataset: str = "adder"
    held_out: str | None = None
    held_out_share: float = Field(default=0.1, ge=0, lt=1)
    max_length: int = Field(default=32_768, ge=2)
    seed: int = Field(default=0, ge=0)
    steps: int = Field(default=40, ge=1)
    batch_size: int = Field(default=32, ge=1)
    rank: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    schedule: Schedule = "linear"
    learning_rate_end: float = Field(default=0.1, ge=0, le=1)
    warmup_steps: int = Field(default=0, ge=0)
    eval_every: int = Field(default=10, ge=0)
    checkpoint_every: int = Field(default=10, ge=1)
    keep_checkpoints: int | None = Field(default=None, ge=1)
    steps_ahead: int = Field(default=2, ge=1)
    loggers: TrackerNames = ()

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / max(1, self.steps - 1 - self.warmup_steps)
        falls = {
            "constant": 0.0,
            "linear": progress,
            "cosine": (1 - math.cos(math.pi * progress)) / 2,
        }[self.schedule]
        return self.learning_rate * (1 - (1 - self.learning_rate_end) * falls)


class SftConfig(ExamplesConfig):
    """Supervised fine-tuning: learn to complete prompts as the examples do."""

    kind: Literal["sft"] = "sft"


class DpoConfig(ExamplesConfig):
    """Direct preference optimization: learn to prefer one completion to the other.

    Attributes:
        beta: How much the policy is held to its reference: high values change it less.
    """

    kind: Literal["dpo"] = "dpo"
    learning_rate: float = Field(default=5e-4, gt=0)
    beta: float = Field(default=0.1, gt=0)


AnyConfig: TypeAlias = RunConfig | SftConfig | DpoConfig
_EXAMPLES: TypeAdapter[SftConfig | DpoConfig] = TypeAdapter(
    Annotated[SftConfig | DpoConfig, Field(discriminator="kind")]
)


def load(path: Path | None = None, overrides: Mapping[str, object] | None = None) -> AnyConfig:
    """Read settings of any kind of run; ``kind`` says which: ``rl`` if it is not there.

    Args:
        path: A TOML file.
        overrides: Those that are not None win over it; ``kind`` may be among them.

    Raises:
        ConfigurationError: The file cannot be read, or a setting is unknown or out of range.
    """
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    values = _read(path) if path is not None else {}
    together = {**values, **given}
    kind = together.pop("kind", "rl")
    if kind == "rl":
        return load_rl(None, together)
    try:
        return _EXAMPLES.validate_python({**together, "kind": kind})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise ConfigurationError(f"settings of the run: {problems}") from error


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
