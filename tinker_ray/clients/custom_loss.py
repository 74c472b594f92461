"""A forward_backward whose loss is a function of the user's.

A forward pass gives the logprobs; the function and its gradient run in a thread of this process; a
backward pass carries the gradient to the weights, see :mod:`tinker_ray.core.custom_loss`. The
numbers of both passes are reserved at the call, so that what is called afterwards is applied
afterwards; if it fails, what waits behind it is rejected, because it counted on its gradients.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.operations import batch_operations
from tinker_ray.clients.order import Place
from tinker_ray.core.custom_loss import linearise, require_torch
from tinker_ray.core.loss_graph import TARGETS
from tinker_ray.errors import PoisonedClientError
from tinker_ray.telemetry.carrier import inject
from tinker_ray.types import Datum, TensorData
from tinker_ray.wire.chunking import join

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tinker_ray.clients.operations import Operations
    from tinker_ray.clients.order import Hold
    from tinker_ray.core.custom_loss import CustomLossFnV1, Linearised, Tensor
    from tinker_ray.types import ForwardBackwardOutput
    from tinker_ray.types.training import TensorLike

T = TypeVar("T")

_BACKEND = "cross_entropy"
_LOSS = "loss:sum"
_SURROGATE = "surrogate_loss:sum"


def run_custom_loss(
    operations: Operations, data: Sequence[Datum], loss_fn: CustomLossFnV1
) -> APIFuture[ForwardBackwardOutput]:
    """Reserve the numbers of a custom loss and start it.

    Raises:
        ValueError: There is no data, or a datum has no ``target_tokens``.
        ConfigurationError: torch is not installed.
    """
    require_torch()
    batch = list(data)
    parts = operations.split([_for_forward(i, datum) for i, datum in enumerate(batch)])
    try:
        hold = operations.order.hold(2 * len(parts))
    except PoisonedClientError as error:
        return APIFuture.failed(error)
    custom = CustomLoss(operations, batch, parts, loss_fn, hold)
    return APIFuture.start_detached(custom.run(inject()))


class CustomLoss:
    """One call: its reserved numbers and what runs under them.

    Args:
        operations: The model's.
        data: The batch, as the user gave it.
        parts: The same datums for the forward pass, as they are sent; both passes have the same
            boundaries, because each part has a number.
        loss_fn: The loss.
        hold: The numbers: first those of the forward pass, then those of the backward pass.
    """

    def __init__(
        self,
        operations: Operations,
        data: list[Datum],
        parts: list[list[Datum]],
        loss_fn: CustomLossFnV1,
        hold: Hold,
    ) -> None:
        self._operations = operations
        self._data = data
        self._parts = parts
        self._loss_fn = loss_fn
        self._hold = hold

    async def run(self, carrier: dict[str, str]) -> ForwardBackwardOutput:
        """Run it to its end. On the bridge.

        Raises:
            ValueError: The loss does not depend on every datum's logprobs.
            PoisonedClientError: An earlier custom loss of the client failed.
            TinkerError: A pass failed.
            Exception: What the loss function raises.
        """
        numbers, count = self._hold.numbers, len(self._parts)
        to_come = numbers[count:]
        try:
            forward = await self._pass(self._parts, numbers[:count], carrier, forward_only=True)
            linearised, parts = await in_thread(lambda: self._linearise(forward))
            backward = asyncio.ensure_future(
                self._pass(parts, to_come, carrier, forward_only=False)
            )
            to_come = range(0)
            self._operations.order.let_pass(self._hold)
            output = await backward
        except BaseException as error:
            self._operations.order.poison(self._hold, error)
            self._operations.fill(to_come)
            raise
        return _with_loss(output, linearised)

    async def _pass(
        self,
        parts: list[list[Datum]],
        numbers: range,
        carrier: dict[str, str],
        *,
        forward_only: bool,
    ) -> ForwardBackwardOutput:
        place = Place(numbers, self._hold.behind)
        operations = batch_operations(numbers, parts, _BACKEND, forward_only=forward_only)
        running = [self._operations.run(operation, place, carrier) for operation in operations]
        # All of them, whichever fails: each has to use its number.
        outputs: list[ForwardBackwardOutput] = []
        for outcome in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            outputs.append(outcome)
        return join(outputs, [len(part) for part in parts])

    def _linearise(self, forward: ForwardBackwardOutput) -> tuple[Linearised, list[list[Datum]]]:
        """Compute the loss, and the parts of the backward pass."""
        linearised = linearise(self._loss_fn, self._data, forward.loss_fn_outputs)
        weighted = map(_for_backward, self._data, linearised.weights)
        return linearised, [[next(weighted) for _ in part] for part in self._parts]


async def in_thread(function: Callable[[], T]) -> T:
    """Run a function of the user's in a thread of its own, which no exit of the process waits for.

    Raises:
        Exception: What it raises.
        RuntimeError: It raises what would end an event loop, such as ``SystemExit``.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(result)  # type: ignore[arg-type]  # T may include None
        else:
            outcome.set_exception(error)

    def work() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = context.run(function)
        except BaseException as raised:  # noqa: BLE001 - it is raised where it is awaited
            error = raised
            if not isinstance(raised, Exception) or isinstance(raised, StopIteration):
                error = RuntimeError(f"the loss function raised {raised!r}")
                error.__cause__ = raised
        loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="tinker-ray-loss", daemon=True).start()
    return await outcome


def _for_forward(i: int, datum: Datum) -> Datum:
    """Leave what a cross entropy reads; its weights do not matter to the logprobs."""
    targets = datum.loss_fn_inputs.get(TARGETS)
    if targets is None:
        message = f"data[{i}] has no target_tokens: a custom loss is a function of their logprobs"
        raise ValueError(message)
    weights = datum.loss_fn_inputs.get("weights")
    if weights is None:
        shape = targets.values.shape if targets.shape is None else tuple(targets.shape)
        weights = TensorData.from_numpy(np.zeros(shape, dtype=np.float32))
    return _with_inputs(datum, {TARGETS: targets, "weights": weights})


def _with_inputs(datum: Datum, inputs: Mapping[str, TensorLike]) -> Datum:
    return Datum(datum.model_input, inputs, datum.model_input_spans, datum.loss_fn_input_spans)


def _for_backward(datum: Datum, weights: Tensor) -> Datum:
    targets = datum.loss_fn_inputs[TARGETS]
    return _with_inputs(datum, {TARGETS: targets, "weights": weights})


def _with_loss(output: ForwardBackwardOutput, linearised: Linearised) -> ForwardBackwardOutput:
    """Report the user's loss and metrics; the linear loss means nothing as a value."""
    metrics = output.metrics | linearised.metrics | {_LOSS: linearised.loss}
    if _LOSS in output.metrics:
        metrics[_SURROGATE] = output.metrics[_LOSS]
    return replace(output, metrics=metrics)
