"""A training operation whose data are still to be made, and its result without its arrays.

Knows nothing of where the data are. Invariant: neither of them grows with the tokens of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinker_ray.core.operation import ForwardBackward
from tinker_ray.rollouts.far_datum import Agreement
from tinker_ray.types import Datum, ForwardBackwardOutput, ModelInput
from tinker_ray.wire.chunking import join

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTHING = Datum(ModelInput.from_ints([0]), {"target_tokens": [0], "weights": [0.0]})
"""What takes a place in the order without having an effect."""


def without_effect(number: int) -> ForwardBackward:
    """Make an operation that does nothing but use up its number."""
    return ForwardBackward(number, [NOTHING], "cross_entropy", forward_only=True)


@dataclass(frozen=True, slots=True)
class FarForwardBackward(ForwardBackward):
    """A part of a batch of which some data are :class:`~tinker_ray.rollouts.far_datum.FarDatum`.

    A training actor makes them and runs the plain operation; it answers with :class:`FarOutput`.
    """


def plain(operation: FarForwardBackward, data: Sequence[Datum]) -> ForwardBackward:
    """Make the operation that the service is sent; without data, one of its kind without effect.

    Of its kind, because the service may have had the number before, with all that is lost now.
    """
    loss_fn, config = operation.loss_fn, operation.loss_fn_config
    return ForwardBackward(
        operation.seq,
        data or [NOTHING],
        loss_fn if data else "cross_entropy",
        config if data else {},
        part=operation.part,
        num_parts=operation.num_parts,
    )


@dataclass(frozen=True, slots=True)
class FarOutput:
    """What a forward and backward pass over far data gave.

    Attributes:
        metrics: As the service gives them.
        agreement: Between the sampler and the trainer.
        lost: The places of the groups in the batch whose trajectories are lost: it is as if they
            had not been in it.
        num_data: How many data there were.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    agreement: Agreement = field(default_factory=Agreement)
    lost: frozenset[int] = frozenset()
    num_data: int = 0


def join_far(outputs: Sequence[FarOutput]) -> FarOutput:
    """Join the results of the parts of a batch."""
    real = [output for output in outputs if output.num_data]
    bare = [ForwardBackwardOutput("", [], output.metrics) for output in real]
    return FarOutput(
        metrics=join(bare, [output.num_data for output in real]).metrics,
        agreement=Agreement(
            sum(output.agreement.log_ratio for output in outputs),
            sum(output.agreement.num_tokens for output in outputs),
        ),
        lost=frozenset().union(*(output.lost for output in outputs)),
        num_data=sum(output.num_data for output in outputs),
    )
