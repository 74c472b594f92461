"""From datums to micro-batches: checked rows, packed under a token budget.

Every mistake in a datum is found here, before anything is computed, and named by its path.

Invariant: each row is in exactly one micro-batch, and the packing depends on nothing but the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.engine.training.datum_check import check_custom_datum, check_datum, refuse
from tinker_ray.engine.training.loss import complete_config
from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.engine.training.custom_loss import CustomLoss
    from tinker_ray.engine.training.datum_check import Limits, TrainingRow
    from tinker_ray.engine.training.provenance import FindSample
    from tinker_ray.engine.training.recorded_samples import RecordedSample
    from tinker_ray.types import Datum


@dataclass(frozen=True, slots=True)
class NamedLoss:
    """One of the built-in losses with its complete configuration."""

    name: str
    config: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """Checked rows, what to compute of them, and whether to go backward."""

    rows: Sequence[TrainingRow]
    loss: NamedLoss | CustomLoss
    backward: bool


def _no_samples(sequence_id: str) -> RecordedSample:
    message = f"sequence {sequence_id!r} is not recorded"
    raise EngineError(message, category="user")


def prepare_batch(  # noqa: PLR0913 - the parts of a request, and what it is checked against
    data: Sequence[Datum],
    loss_fn: str,
    config: Mapping[str, float | str] | None,
    limits: Limits,
    *,
    backward: bool,
    find_sample: FindSample = _no_samples,
) -> TrainingBatch:
    """Turn a request into a batch that can be computed.

    Args:
        data: The datums.
        loss_fn: The name of a loss.
        config: What it is to do otherwise than by default.
        limits: What the base model can read.
        backward: Whether to compute the gradient.
        find_sample: Looks recorded samples up by their ``sequence_id``.

    Raises:
        EngineError: Something is missing, unknown, of a wrong shape or out of range.
    """
    loss = NamedLoss(loss_fn, complete_config(loss_fn, config))
    if not data:
        refuse("data", "is empty")
    rows = [
        check_datum(
            f"data[{index}]",
            datum,
            loss_fn,
            limits,
            forward_only=not backward,
            find_sample=find_sample,
        )
        for index, datum in enumerate(data)
    ]
    return TrainingBatch(rows, loss, backward)


def prepare_custom_batch(
    data: Sequence[Datum], loss: CustomLoss, limits: Limits, *, backward: bool
) -> TrainingBatch:
    """Turn a request with a custom loss into a batch that can be computed.

    Raises:
        EngineError: Something is missing, unknown, of a wrong rank or out of range.
    """
    if not data:
        refuse("data", "is empty")
    rows = [
        check_custom_datum(f"data[{index}]", datum, loss.inputs, limits)
        for index, datum in enumerate(data)
    ]
    return TrainingBatch(rows, loss, backward)


def pack(lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Group indices of rows so that rows times longest row stays within the budget.

    Rows of similar length come together, longest first; a row beyond the budget is alone.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not batches or (len(batches[-1]) + 1) * longest > budget_tokens:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    return batches
