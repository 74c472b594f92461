from __future__ import annotations

import asyncio
import gc
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.ports import FakeRuntime
from tests.unit.clients.test_training_client import ADAM, Trainee
from tinker_ray import errors
from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.loss_handle import LossHandle, open_custom_loss
from tinker_ray.core.custom_loss import encode, trace
from tinker_ray.core.flags import ServerFlags
from tinker_ray.core.operation import ForwardBackward, OptimStep
from tinker_ray.types import Datum, ModelInput, TensorData

if TYPE_CHECKING:
    from tinker_ray.core.operation import Operation

Tensors = list[torch.Tensor]


def data(*tokens: int) -> list[Datum]:
    """One token each; the port gives the token as its logprob."""
    return [Datum(ModelInput.from_ints([t]), {"target_tokens": [t]}) for t in tokens]


def squares(_: list[Datum], logprobs: Tensors) -> Any:  # noqa: ANN401
    return torch.cat(logprobs).square().sum(), {"mine": 1.0}


def ran_in_order(trainee: Trainee) -> list[Operation]:
    """What reached the port, in the order of the numbers."""
    return sorted(trainee.port.ran, key=lambda operation: operation.seq)


def passes(trainee: Trainee) -> list[ForwardBackward]:
    """The same, if there is nothing but batches."""
    ran = [op for op in ran_in_order(trainee) if isinstance(op, ForwardBackward)]
    assert len(trainee.port.ran) == len(ran)
    return ran


def weights(operation: Operation) -> list[float]:
    assert isinstance(operation, ForwardBackward)
    return [datum.loss_fn_inputs["weights"].data[0] for datum in operation.data]


# --- one call -------------------------------------------------------------------------------------


def test_a_custom_loss_is_a_forward_pass_and_a_backward_pass_with_its_gradient() -> None:
    trainee = Trainee()
    output = trainee.client.forward_backward_custom(data(3, 4), squares).result(5)
    forward, backward = passes(trainee)
    assert ForwardBackward(1, forward.data, "cross_entropy", forward_only=True) == forward
    assert ForwardBackward(2, backward.data, "cross_entropy") == backward
    assert ([0.0, 0.0], [-6.0, -8.0]) == (weights(forward), weights(backward))
    assert {"loss:sum": 25.0, "surrogate_loss:sum": 2.0, "seq:max": 2.0, "mine": 1.0} == (
        output.metrics
    )
    assert [[3.0], [4.0]] == [item["logprobs"].data for item in output.loss_fn_outputs]


def test_only_targets_and_weights_are_sent_and_the_loss_sees_everything() -> None:
    trainee = Trainee()
    seen: list[Datum] = []
    rich = [
        Datum(
            ModelInput.from_ints([5]),
            {"target_tokens": [5], "weights": [0.5], "mine": np.array([1.0])},
        )
    ]

    def loss_fn(batch: list[Datum], logprobs: Tensors) -> Any:  # noqa: ANN401
        seen.extend(batch)
        return squares(batch, logprobs)

    trainee.client.forward_backward_custom(rich, loss_fn).result(5)
    forward, backward = passes(trainee)
    keys = [set(operation.data[0].loss_fn_inputs) for operation in (forward, backward)]
    assert [{"target_tokens", "weights"}] * 2 == keys
    assert ([0.5], rich) == (weights(forward), seen)


def test_targets_with_two_axes_get_weights_with_two_axes() -> None:
    trainee = Trainee()
    targets = TensorData([1, 2, 3, 4], "int64", [2, 2])
    batch = [Datum(ModelInput.from_ints([1, 2]), {"target_tokens": targets})]

    class Pairs(type(trainee.port)):  # type: ignore[misc]  # the fake's class
        async def run(self, operation: Any, *rest: Any) -> Any:  # noqa: ANN401
            output = await super().run(operation, *rest)
            pairs = TensorData([-1.0, -2.0, -3.0, -4.0], "float32", [2, 2])
            return type(output)("", [{"logprobs": pairs}], output.metrics)

    trainee.client._operations.port = trainee.port = Pairs()
    trainee.client.forward_backward_custom(batch, squares).result(5)
    forward, backward = passes(trainee)
    sent = [op.data[0].loss_fn_inputs["weights"] for op in (forward, backward)]
    assert [[[0.0, 0.0], [0.0, 0.0]], [[2.0, 4.0], [6.0, 8.0]]] == [w.tolist() for w in sent]


def test_both_passes_have_the_same_parts_and_numbers_reserved_at_the_call() -> None:
    trainee = Trainee(max_datums=2)
    custom = trainee.client.forward_backward_custom(data(1, 2, 3, 4, 5), squares)
    step = trainee.client.optim_step(ADAM)
    output = custom.result(5)
    assert {"seq:sum": 7.0} == step.result(5).metrics
    ran = ran_in_order(trainee)
    assert list(range(1, 8)) == [operation.seq for operation in ran]
    assert [2, 2, 1, 2, 2, 1] == [len(op.data) for op in ran if isinstance(op, ForwardBackward)]
    assert [-2.0, -4.0, -6.0, -8.0, -10.0] == [w for op in ran[3:6] for w in weights(op)]
    assert isinstance(ran[6], OptimStep)
    assert [1.0, 2.0, 3.0, 4.0, 5.0] == [o["logprobs"].data[0] for o in output.loss_fn_outputs]


def test_the_loss_runs_in_a_thread_of_its_own_in_the_callers_context() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    seen: list[tuple[str, bool, str]] = []

    def loss_fn(batch: list[Datum], logprobs: Tensors) -> Any:  # noqa: ANN401
        thread = threading.current_thread()
        seen.append((thread.name, thread.daemon, variable.get()))
        return squares(batch, logprobs)

    variable.set("the caller's")
    Trainee().client.forward_backward_custom(data(1), loss_fn).result(5)
    assert [("tinker-ray-loss", True, "the caller's")] == seen


async def test_the_async_twin_gives_the_future() -> None:
    trainee = Trainee()
    future = await trainee.client.forward_backward_custom_async(
        data(2), squares, loss_type_input="logprobs"
    )
    assert 4.0 == (await future).metrics["loss:sum"]


def test_a_wait_that_is_given_up_leaves_the_custom_loss_running() -> None:
    trainee = Trainee()
    gate = trainee.port.gates[1] = asyncio.Event()
    future = trainee.client.forward_backward_custom(data(1), squares)
    with pytest.raises(TimeoutError):
        future.result(0.001)
    assert not future.cancel()
    Bridge.get().loop.call_soon_threadsafe(gate.set)
    future.result(5)
    trainee.client.optim_step(ADAM).result(5)
    assert [1, 2, 3] == trainee.seqs


@pytest.mark.parametrize(
    "batch, message",
    [
        ([], "at least one datum"),
        ([*data(1), Datum(ModelInput.from_ints([1]))], r"data\[1\] has no target_tokens"),
    ],
)
def test_data_that_cannot_be_used_is_refused_at_the_call(batch: list[Datum], message: str) -> None:
    trainee = Trainee()
    with pytest.raises(ValueError, match=message):
        trainee.client.forward_backward_custom(batch, squares)
    trainee.client.optim_step(ADAM).result(5)
    assert [1] == trainee.seqs


def test_another_input_of_the_loss_is_refused() -> None:
    other: Any = "logits"
    with pytest.raises(ValueError, match="loss_type_input='logits'"):
        Trainee().client.forward_backward_custom(data(1), squares, loss_type_input=other)


# --- failures -------------------------------------------------------------------------------------


def failing(_: list[Datum], __: Tensors) -> Any:  # noqa: ANN401
    message = "mine"
    raise ZeroDivisionError(message)


def test_a_failure_rejects_what_waits_behind_it_and_later_calls_and_uses_up_the_numbers() -> None:
    trainee = Trainee(max_datums=1)
    gate = trainee.port.gates[2] = asyncio.Event()
    before = trainee.client.forward_backward(data(9), "cross_entropy")
    custom = trainee.client.forward_backward_custom(data(1, 2), failing)
    waiting = trainee.client.optim_step(ADAM)
    batch = trainee.client.forward_backward(data(3, 4), "cross_entropy")
    Bridge.get().loop.call_soon_threadsafe(gate.set)
    before.result(5)
    with pytest.raises(ZeroDivisionError, match="mine"):
        custom.result(5)
    for rejected in (waiting, batch, trainee.client.optim_step(ADAM)):
        with pytest.raises(errors.PoisonedClientError, match=r"ZeroDivisionError\('mine'\)"):
            rejected.result(5)
    with pytest.raises(errors.PoisonedClientError):
        trainee.client.save_state("a").result(5)
    with pytest.raises(errors.PoisonedClientError):
        trainee.client.forward(data(1), "cross_entropy").result(5)
    with pytest.raises(errors.PoisonedClientError):
        trainee.client.forward_backward_custom(data(1), squares).result(5)
    settle(trainee)
    ran = ran_in_order(trainee)
    assert list(range(1, 9)) == [operation.seq for operation in ran]
    assert [False, True, True, True, True, True, True, True] == [
        isinstance(op, ForwardBackward) and op.forward_only for op in ran
    ]
    assert 9 == trainee.client._operations.order.floor


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration()], ids=repr)
def test_a_loss_cannot_end_the_event_loop_that_waits_for_it(error: BaseException) -> None:
    def ending(_: list[Datum], __: Tensors) -> Any:  # noqa: ANN401
        raise error

    trainee = Trainee()
    with pytest.raises(RuntimeError, match=type(error).__name__) as raised:
        trainee.client.forward_backward_custom(data(1), ending).result(5)
    assert error is raised.value.__cause__
    settle(trainee)
    Trainee().client.optim_step(ADAM).result(5)


def settle(trainee: Trainee) -> None:
    """Wait until the numbers are used up."""

    async def wait() -> None:
        while trainee.client._operations._filling:
            await asyncio.wait(trainee.client._operations._filling)

    Bridge.get().submit(wait()).result(5)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_pass_that_fails_fails_the_call_and_poisons_the_client(number: int) -> None:
    trainee = Trainee(max_datums=1)
    trainee.port.failures[number] = errors.RequestFailedError("no", request_id="r")
    with pytest.raises(errors.RequestFailedError, match="no"):
        trainee.client.forward_backward_custom(data(1, 2), squares).result(5)
    with pytest.raises(errors.PoisonedClientError, match="no"):
        trainee.client.optim_step(ADAM).result(5)
    settle(trainee)
    assert [1, 2, 3, 4] == sorted(trainee.seqs)
    assert 5 == trainee.client._operations.order.floor


def test_parts_that_fail_together_fail_the_call_once(caplog: pytest.LogCaptureFixture) -> None:
    trainee = Trainee(max_datums=1)
    for number in (1, 2):
        trainee.port.failures[number] = errors.RequestFailedError("no", request_id="r")
    with pytest.raises(errors.RequestFailedError):
        trainee.client.forward_backward_custom(data(1, 2), squares).result(5)
    settle(trainee)
    gc.collect()
    assert [] == caplog.records


def test_numbers_that_cannot_be_used_up_are_given_up() -> None:
    trainee = Trainee()
    trainee.port.failures[2] = errors.StaleHandleError("closed")
    with pytest.raises(ZeroDivisionError):
        trainee.client.forward_backward_custom(data(1), failing).result(5)
    settle(trainee)
    assert 3 == trainee.client._operations.order.floor


def test_a_custom_loss_behind_one_that_fails_is_rejected() -> None:
    trainee = Trainee()
    gate = trainee.port.gates[1] = asyncio.Event()
    first = trainee.client.forward_backward_custom(data(1), failing)
    second = trainee.client.forward_backward_custom(data(2), squares)
    last = trainee.client.optim_step(ADAM)
    Bridge.get().loop.call_soon_threadsafe(gate.set)
    with pytest.raises(ZeroDivisionError):
        first.result(5)
    for future in (second, last):
        with pytest.raises(errors.PoisonedClientError, match="mine"):
            future.result(5)
    settle(trainee)
    assert [1, 2, 3, 4, 5] == sorted(trainee.seqs)
    assert not any(isinstance(operation, OptimStep) for operation in trainee.port.ran)


# --- many calls -----------------------------------------------------------------------------------

CALLS = st.lists(
    st.lists(st.sampled_from(["custom", "plain", "step"]), max_size=5), min_size=1, max_size=3
)


@settings(max_examples=15, deadline=None)
@given(calls=CALLS)
def test_interleaved_calls_of_several_threads_keep_their_numbers_together(
    calls: list[list[str]],
) -> None:
    trainee = Trainee(max_datums=1)
    start = threading.Barrier(len(calls))
    futures: list[Any] = []

    def call(token: int, kinds: list[str]) -> None:
        start.wait(5)
        for kind in kinds:
            if kind == "custom":
                futures.append(trainee.client.forward_backward_custom(data(token, token), squares))
            elif kind == "plain":
                futures.append(trainee.client.forward_backward(data(token, token), "ppo"))
            else:
                futures.append(trainee.client.optim_step(ADAM))

    threads = [
        threading.Thread(target=call, args=(token, kinds)) for token, kinds in enumerate(calls, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    for future in futures:
        future.result(5)
    ran = ran_in_order(trainee)
    assert list(range(1, len(ran) + 1)) == [operation.seq for operation in ran]
    shown = [shape(operation) for operation in ran]
    sizes = {"custom": 4, "plain": 2, "step": 1}
    assert sum(sizes[kind] for kinds in calls for kind in kinds) == len(shown)
    while shown:
        kind, token = shown[0]
        expected = {
            "forward": [("forward", token)] * 2 + [("backward", token)] * 2,
            "ppo": [("ppo", token)] * 2,
            "step": [("step", 0)],
        }[kind]
        assert expected == shown[: len(expected)]
        del shown[: len(expected)]


def shape(operation: Operation) -> tuple[str, int]:
    if not isinstance(operation, ForwardBackward):
        return "step", 0
    token = operation.data[0].model_input.to_ints()[0]
    if operation.loss_fn == "ppo":
        return "ppo", token
    return ("forward" if operation.forward_only else "backward"), token


# --- losses by handle -----------------------------------------------------------------------------


def weighted(logprobs: torch.Tensor, scale: torch.Tensor) -> Any:  # noqa: ANN401
    loss = -(logprobs * scale).sum()
    return loss, {"custom/a:mean": loss}


def scaled(*tokens: int) -> list[Datum]:
    return [
        Datum(ModelInput.from_ints([t]), {"target_tokens": [t], "scale": np.array([2.0])})
        for t in tokens
    ]


RANKS: Any = {"logprobs": 1, "scale": 1}


def test_a_loss_by_handle_runs_here() -> None:
    trainee = Trainee()
    handle = open_custom_loss(trainee.session, weighted, RANKS).result(5)
    assert ("weighted", "S1", None, ("scale",)) == (
        handle.name,
        handle.session_id,
        handle.loss_id,
        handle.input_names,
    )
    output = trainee.client.forward_backward_custom(scaled(3, 4), handle).result(5)
    assert (-14.0, -7.0) == (output.metrics["loss:sum"], output.metrics["custom/a:mean"])
    assert [2.0, 2.0] == weights(passes(trainee)[1])


def test_a_loss_is_made_once_in_a_session() -> None:
    trainee = Trainee()
    open_custom_loss(trainee.session, weighted, RANKS).result(5)
    with pytest.raises(ValueError, match="as 'weighted': use its LossHandle"):
        open_custom_loss(trainee.session, weighted, RANKS).result(5)
    open_custom_loss(Trainee().session, weighted, RANKS).result(5)


def serving(trainee: Trainee) -> Trainee:
    """Let the service run losses itself."""
    trainee.runtime.flags = ServerFlags(custom_loss_server_side=True)
    return trainee


def test_a_service_that_runs_losses_is_given_the_graph_and_runs_it_in_one_request() -> None:
    trainee = serving(Trainee())
    handle = open_custom_loss(trainee.session, weighted, RANKS).result(5)
    name, number, *uploaded = trainee.runtime.calls[-1]
    inputs = [{"name": "logprobs", "rank": 1}, {"name": "scale", "rank": 1}]
    graph = encode(trace(weighted, RANKS))
    assert ("create_custom_loss", 0, ["weighted", inputs, graph]) == (name, number, uploaded)
    batch = scaled(3, 4)
    trainee.client.forward_backward_custom(batch, handle).result(5)
    assert handle.loss_id is not None
    assert [ForwardBackward(1, batch, "custom", {"loss_id": handle.loss_id})] == trainee.port.ran


def test_a_loss_that_the_service_refuses_can_be_made_again_under_the_next_number() -> None:
    trainee = serving(Trainee())

    class Refusing(FakeRuntime):
        async def create_custom_loss(self, custom_loss_seq_id: int, *rest: Any) -> str:  # noqa: ANN401
            if custom_loss_seq_id == 0:
                raise errors.RequestFailedError("no", request_id="r", category="user")
            return await super().create_custom_loss(custom_loss_seq_id, *rest)

    trainee.runtime = Refusing(flags=trainee.runtime.flags)
    with pytest.raises(errors.RequestFailedError, match="no"):
        open_custom_loss(trainee.session, weighted, RANKS).result(5)
    assert open_custom_loss(trainee.session, weighted, RANKS).result(5).loss_id is not None


def test_a_loss_that_cannot_be_traced_is_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="must take logprobs first"):
        open_custom_loss(Trainee().session, lambda scale: scale, {})


def test_a_loss_of_another_session_or_for_other_data_is_refused_at_the_call() -> None:
    trainee = Trainee()
    handle = open_custom_loss(trainee.session, weighted, RANKS).result(5)
    with pytest.raises(ValueError, match=r"\['scale'\] is missing"):
        trainee.client.forward_backward_custom(data(1), handle)
    foreign = LossHandle(handle.name, handle.inputs, "S2", handle.graph)
    with pytest.raises(ValueError, match="was made in session 'S2'"):
        trainee.client.forward_backward_custom(scaled(1), foreign)
    assert [] == trainee.seqs


def test_handles_are_values() -> None:
    handle = open_custom_loss(Trainee().session, weighted, RANKS).result(5)
    same = LossHandle(handle.name, handle.inputs, "S1", handle.graph)
    assert (handle, handle.key) == (same, same.key)
    assert "graph" not in repr(handle)
