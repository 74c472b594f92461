"""One model's operations on their way from the calls of a client to its port.

Every operation gets its number at the call and is handed over in a task of its own, so that the
calls may come from any thread and nobody has to wait for their futures. Invariant: every number
that was issued is handed over, as its operation or, if that may not be applied any more, as one
without effect, so that neither the port nor the service waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.order import Order, Place
from tinker_ray.core.far_operation import FarForwardBackward, join_far, without_effect
from tinker_ray.core.operation import ForwardBackward, SaveForSampler
from tinker_ray.errors import PoisonedClientError, TinkerError
from tinker_ray.rollouts.far_datum import split_far
from tinker_ray.telemetry.carrier import inject
from tinker_ray.wire.chunking import join, split

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from tinker_ray.core.far_operation import FarOutput
    from tinker_ray.core.operation import Operation
    from tinker_ray.core.port import TrainingPort
    from tinker_ray.rollouts.far_datum import AnyDatum
    from tinker_ray.types import Datum, ForwardBackwardOutput
    from tinker_ray.wire.chunking import ChunkLimits

logger = logging.getLogger(__name__)

NO_DATA = "no data: forward and forward_backward need at least one datum"


def _ignore(_: Exception) -> None:
    pass


class Operations:
    """Numbers operations and hands them to a port.

    Args:
        port: The model's.
        first: The first number.
        limits: The most that one request carries.
        session_number: Issues the number of a sampling session, for a snapshot.
        on_failure: Hears of operations that failed.
    """

    def __init__(
        self,
        port: TrainingPort,
        first: int,
        limits: ChunkLimits,
        session_number: Callable[[], Awaitable[int]],
        on_failure: Callable[[Exception], object] = _ignore,
    ) -> None:
        self.port = port
        self.order = Order(first)
        self.limits = limits
        self._on_failure = on_failure
        self._session_number = session_number
        self._filling: set[asyncio.Task[None]] = set()

    def start(self, make: Callable[[int], Operation]) -> APIFuture[Any]:
        """Hand over the operation that ``make`` makes of its number."""
        try:
            place = self.order.take()
        except PoisonedClientError as error:
            return APIFuture.failed(error)
        return self._hand_over(make(place.numbers[0]), place)

    def batch(
        self,
        data: Sequence[Datum],
        loss_fn: str,
        loss_fn_config: Mapping[str, float | str] | None,
        *,
        forward_only: bool,
    ) -> APIFuture[ForwardBackwardOutput]:
        """Hand over a batch, in as many parts as the service wants, and join their results.

        Raises:
            ValueError: There is no data.
        """
        parts = self.split(data)
        try:
            place = self.order.take(len(parts))
        except PoisonedClientError as error:
            return APIFuture.failed(error)
        futures = [
            self._hand_over(operation, place)
            for operation in batch_operations(
                place.numbers, parts, loss_fn, loss_fn_config, forward_only=forward_only
            )
        ]
        return APIFuture.start(_joined(futures, [len(part) for part in parts]))

    @property
    def takes_far_data(self) -> bool:
        """Whether the data of far groups are made behind the port."""
        return bool(getattr(self.port, "takes_far_data", False))

    def far_batch(
        self, data: Sequence[AnyDatum], loss_fn: str, loss_fn_config: Mapping[str, float | str]
    ) -> APIFuture[FarOutput]:
        """Hand over a batch of which some data are still to be made behind the port.

        Raises:
            ValueError: There is no data.
        """
        if not data:
            raise ValueError(NO_DATA)
        parts = split_far(data, self.limits)
        try:
            place = self.order.take(len(parts))
        except PoisonedClientError as error:
            return APIFuture.failed(error)
        futures: list[APIFuture[FarOutput]] = [
            self._hand_over(
                FarForwardBackward(
                    seq,
                    cast("list[Datum]", part),
                    loss_fn,
                    dict(loss_fn_config),
                    part=number,
                    num_parts=len(parts),
                ),
                place,
            )
            for number, (seq, part) in enumerate(zip(place.numbers, parts, strict=True))
        ]
        return APIFuture.start(_joined_far(futures))

    def split(self, data: Sequence[Datum]) -> list[list[Datum]]:
        """Cut a batch into the parts that the service takes.

        Raises:
            ValueError: There is no data.
        """
        if not data:
            raise ValueError(NO_DATA)
        return split(data, self.limits)

    async def run(self, operation: Operation, place: Place, carrier: dict[str, str]) -> Any:  # noqa: ANN401 - each kind of operation has its own result
        """Execute an operation once everything before it has been handed over. On the bridge.

        Raises:
            PoisonedClientError: Something before it failed, so that it must not be applied.
            TinkerError: It failed.
        """
        try:
            await place.cleared()
            operation = await self._completed(operation)
        except TinkerError:
            self.fill([operation.seq])
            raise
        try:
            return await self.port.run(operation, self.order.floor, carrier)
        except Exception as error:
            self._on_failure(error)
            raise
        finally:
            self.order.close(operation.seq)

    async def _completed(self, operation: Operation) -> Operation:
        """Give a snapshot the number of its sampling session."""
        if not isinstance(operation, SaveForSampler) or operation.name is not None:
            return operation
        return replace(operation, sampling_session_seq_id=await self._session_number())

    def fill(self, numbers: Iterable[int]) -> None:
        """Use up numbers whose operations may not be applied. Runs on the bridge."""
        for number in numbers:
            task = asyncio.get_running_loop().create_task(self._fill(number))
            self._filling.add(task)
            task.add_done_callback(self._filling.discard)

    async def _fill(self, number: int) -> None:
        try:
            await self.port.run(without_effect(number), self.order.floor)
        except TinkerError as error:
            logger.debug("the number %d could not be used up: %s", number, error)
        finally:
            self.order.close(number)

    def _hand_over(self, operation: Operation, place: Place) -> APIFuture[Any]:
        return APIFuture.start_detached(self.run(operation, place, inject()))


def batch_operations(
    numbers: range,
    parts: Sequence[Sequence[Datum]],
    loss_fn: str,
    loss_fn_config: Mapping[str, float | str] | None = None,
    *,
    forward_only: bool,
) -> list[ForwardBackward]:
    """Make the operations of a batch in parts, one for each number."""
    config = dict(loss_fn_config or {})
    return [
        ForwardBackward(seq, part, loss_fn, config, forward_only, i, len(parts))
        for i, (seq, part) in enumerate(zip(numbers, parts, strict=True))
    ]


async def _joined_far(futures: list[APIFuture[FarOutput]]) -> FarOutput:
    return join_far([await future for future in futures])


async def _joined(
    futures: list[APIFuture[ForwardBackwardOutput]], counts: list[int]
) -> ForwardBackwardOutput:
    return join([await future for future in futures], counts)
