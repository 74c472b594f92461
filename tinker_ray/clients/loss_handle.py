"""Losses made with ``ServiceClient.create_custom_loss``: traced once, run by handle."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.core.custom_loss import PerDatumLossFn, TracedLoss, encode, trace
from tinker_ray.core.loss_graph import check_data

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.clients.session import ClientSession
    from tinker_ray.core.custom_loss import Graph, Tensor
    from tinker_ray.types import CustomLossInput, CustomLossInputRank, Datum


__all__ = ["LossHandle", "PerDatumLossFn", "open_custom_loss"]


@dataclass(frozen=True)
class LossHandle:
    """A custom loss of a session, for ``TrainingClient.forward_backward_custom``.

    Attributes:
        name: That of the function.
        inputs: ``logprobs``, then the ``loss_fn_inputs`` that the loss reads, in the order in which
            it takes them, each with its rank.
        session_id: The session that it was made in; only clients of that one take it.
        graph: The traced loss; this is what runs, not the function.
        loss_id: The service's name for it; None if it runs in this process.
    """

    name: str
    inputs: tuple[CustomLossInput, ...]
    session_id: str
    graph: Graph = field(repr=False, compare=False)
    loss_id: str | None = None

    @property
    def key(self) -> str:
        """Tells losses apart: equal computations on equal inputs have equal keys."""
        return self._traced.key

    @property
    def input_names(self) -> tuple[str, ...]:
        """The ``loss_fn_inputs`` that the loss reads, in the order in which it takes them."""
        return tuple(item.name for item in self.inputs[1:])

    def check(self, session_id: str, data: Sequence[Datum]) -> None:
        """Check that this loss fits a batch of a session's client.

        Raises:
            ValueError: It was made in another session, or a datum lacks an input that it reads, or
                has one of another rank.
        """
        if self.session_id != session_id:
            message = (
                f"the loss {self.name!r} was made in session {self.session_id!r}, this client is "
                f"of {session_id!r}: make the loss with this client's ServiceClient"
            )
            raise ValueError(message)
        check_data(self.name, self.inputs, data)

    def __call__(
        self, data: Sequence[Datum], logprobs: Sequence[Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """Run the loss on a batch, in this process.

        Raises:
            ValueError: The loss of a datum is no scalar.
        """
        return self._traced.over(data, logprobs)

    @property
    def _traced(self) -> TracedLoss:
        return TracedLoss(self.name, self.inputs, self.graph)


def open_custom_loss(
    session: ClientSession, fn: PerDatumLossFn, input_ranks: Mapping[str, CustomLossInputRank]
) -> APIFuture[LossHandle]:
    """Trace a loss, and upload it if the service runs losses itself.

    Args:
        session: Whose clients are to use it.
        fn: The loss of one datum.
        input_ranks: The rank of each parameter of ``fn``: 0 for a scalar, 1 for ``(T,)``, 2 for
            ``(T, K)``.

    Raises:
        ValueError: The loss cannot be traced, or does something that it may not; from the future:
            the session has this loss already.
        ConfigurationError: torch is not installed.
        TinkerError: From the future: the service refused the loss.
    """
    return APIFuture.start(_open(session, trace(fn, input_ranks)))


async def _open(session: ClientSession, loss: TracedLoss) -> LossHandle:
    runtime = await session.runtime()
    handle = LossHandle(loss.name, loss.inputs, runtime.session_id, loss.graph)
    if handle.key in session.custom_losses:
        made = session.custom_losses[handle.key]
        message = f"this session has the same loss already, as {made!r}: use its LossHandle again"
        raise ValueError(message)
    session.custom_losses[handle.key] = handle.name
    if not runtime.flags.custom_loss_server_side:
        return handle
    try:
        loss_id = await runtime.session.create_custom_loss(
            await session.number("custom_loss"),
            handle.name,
            [item.model_dump() for item in handle.inputs],
            encode(loss),
        )
    except BaseException:
        del session.custom_losses[handle.key]
        raise
    return replace(handle, loss_id=loss_id)
