from __future__ import annotations

import asyncio
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.ports import FakeRuntime, FakeTrainingPort
from tinker_ray import errors
from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.session import ClientSession
from tinker_ray.clients.training import TrainingClient
from tinker_ray.config import Secret, Settings
from tinker_ray.core.flags import ServerFlags
from tinker_ray.core.operation import (
    ForwardBackward,
    LoadState,
    OptimStep,
    SaveExternal,
    SaveForSampler,
    SaveState,
)
from tinker_ray.core.session import ModelHandle
from tinker_ray.types import (
    AdamParams,
    Datum,
    DimuonParams,
    GetInfoResponse,
    LoadWeightsResponse,
    ModelData,
    ModelInput,
    QueueState,
    RetryConfig,
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerResponse,
    SaveWeightsForSamplerResponseInternal,
    SaveWeightsResponse,
    TensorData,
)
from tinker_ray.wire.chunking import ChunkLimits

if TYPE_CHECKING:
    from tinker_ray.core.port import NumberKind

ADAM = AdamParams()
STATE = "tinker://m/weights/a"


class Trainee:
    """A training client over a port."""

    def __init__(self, *, first_seq: int = 1, max_datums: int = 1024) -> None:
        self.runtime = FakeRuntime()
        self.port = FakeTrainingPort()

        async def opener(*_: Any) -> FakeRuntime:  # noqa: ANN401
            return self.runtime

        self.session = ClientSession(Settings(), None, opener=opener)
        self.client = TrainingClient(
            self.session,
            self.port,
            ModelHandle("S1:train:0", first_seq),
            ServerFlags(chunks=ChunkLimits(max_datums=max_datums)),
        )

    @property
    def seqs(self) -> list[int]:
        return [operation.seq for operation in self.port.ran]


def data(*tokens: int) -> list[Datum]:
    return [Datum(ModelInput.from_ints([token])) for token in tokens]


def test_calls_are_numbered_in_their_order() -> None:
    trainee = Trainee()
    client = trainee.client
    futures: list[APIFuture[Any]] = [
        client.forward_backward(data(1), "cross_entropy"),
        client.optim_step(ADAM),
        client.forward(data(1), "cross_entropy"),
        client.save_state("a"),
        client.load_state(STATE),
        client.load_state_with_optimizer(STATE),
        client.save_weights_for_sampler("b"),
    ]
    for future in futures:
        future.result(5)
    assert [
        ForwardBackward(1, data(1), "cross_entropy"),
        OptimStep(2, ADAM),
        ForwardBackward(3, data(1), "cross_entropy", forward_only=True),
        SaveState(4, "a"),
        LoadState(5, STATE, optimizer=False),
        LoadState(6, STATE, optimizer=True),
        SaveForSampler(7, "b"),
    ] == trainee.port.ran


def test_numbers_go_on_after_what_the_creation_used() -> None:
    trainee = Trainee(first_seq=2)
    trainee.client.optim_step(ADAM).result(5)
    assert [2] == trainee.seqs


def test_arguments_reach_the_operation() -> None:
    trainee = Trainee()
    trainee.client.forward_backward(data(1), "ppo", {"clip_low_threshold": 0.5}).result(5)
    trainee.client.save_state("a", 3600, overwrite=True, user_metadata={"k": "v"}).result(5)
    trainee.client.save_weights_for_sampler("b", 60, {"k": "v"}).result(5)
    assert [
        ForwardBackward(1, data(1), "ppo", {"clip_low_threshold": 0.5}),
        SaveState(2, "a", 3600, overwrite=True, user_metadata={"k": "v"}),
        SaveForSampler(3, "b", None, 60, {"k": "v"}),
    ] == trainee.port.ran


@pytest.mark.parametrize("params", [ADAM, DimuonParams(learning_rate=0.1)])
def test_both_names_of_the_step_parameters_are_taken(params: Any) -> None:  # noqa: ANN401
    trainee = Trainee()
    trainee.client.optim_step(params).result(5)
    trainee.client.optim_step(adam_params=params).result(5)
    trainee.client.optim_step(optim_params=params).result(5)
    assert [OptimStep(1, params), OptimStep(2, params), OptimStep(3, params)] == trainee.port.ran


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({}, TypeError, "pass AdamParams"),
        ({"optim_params": {"learning_rate": 1.0}}, TypeError, "learning_rate.*pass AdamParams"),
        ({"optim_params": ADAM, "adam_params": ADAM}, ValueError, "not both"),
    ],
)
def test_a_step_without_parameters_is_refused_at_the_call(
    arguments: Any,  # noqa: ANN401
    error: type[Exception],
    message: str,
) -> None:
    trainee = Trainee()
    with pytest.raises(error, match=message):
        trainee.client.optim_step(**arguments)
    trainee.client.optim_step(ADAM).result(5)
    assert [1] == trainee.seqs


def test_an_export_carries_its_recipients_and_a_load_its_token() -> None:
    trainee = Trainee()
    trainee.client.save_weights_external("c", 3600, ["age1x"]).result(5)
    token = Secret("secret")
    trainee.client.load_state(STATE, token.reveal()).result(5)
    trainee.client.load_state_with_optimizer(STATE, token.reveal()).result(5)
    assert [
        SaveExternal(1, "c", 3600, ("age1x",)),
        LoadState(2, STATE, optimizer=False, weights_access_token=token),
        LoadState(3, STATE, optimizer=True, weights_access_token=token),
    ] == trainee.port.ran
    assert "secret" not in repr(trainee.port.ran)


async def test_results_have_their_types_and_the_async_twins_give_futures() -> None:
    client = Trainee().client
    assert SaveWeightsResponse(path=STATE) == await (await client.save_state_async("a"))
    assert LoadWeightsResponse(path=STATE) == await (await client.load_state_async(STATE))
    loaded = await (await client.load_state_with_optimizer_async(STATE))
    assert LoadWeightsResponse(path=STATE) == loaded
    saved = await (await client.save_weights_for_sampler_async("b"))
    assert SaveWeightsForSamplerResponse(path="tinker://m/sampler_weights/b") == saved
    stepped = await (await client.optim_step_async(ADAM))
    assert {"seq:sum": 5.0} == stepped.metrics
    exported = await (await client.save_weights_external_async("c"))
    assert SaveWeightsExternalResponse(path="tinker://m/external_weights/c") == exported
    for twin in (client.forward_async, client.forward_backward_async):
        output = await (await twin(data(3), "cross_entropy"))
        assert [{"logprobs": TensorData([3.0], "float32")}] == output.loss_fn_outputs


# --- batches in parts -----------------------------------------------------------------------------


def test_a_large_batch_is_sent_in_parts_and_joined_in_order() -> None:
    trainee = Trainee(max_datums=2)
    output = trainee.client.forward_backward(data(1, 2, 3, 4, 5), "cross_entropy").result(5)
    parts = [op.data for op in trainee.port.ran if isinstance(op, ForwardBackward)]
    assert [data(1, 2), data(3, 4), data(5)] == parts
    assert [1.0, 2.0, 3.0, 4.0, 5.0] == [
        item["logprobs"].data[0] for item in output.loss_fn_outputs
    ]
    assert {"loss:sum": 5.0, "seq:max": 3.0} == output.metrics


def test_the_parts_of_a_batch_have_consecutive_numbers_before_the_next_call() -> None:
    trainee = Trainee(max_datums=1)
    first = trainee.client.forward_backward(data(1, 2, 3), "cross_entropy")
    step = trainee.client.optim_step(ADAM)
    first.result(5)
    step.result(5)
    assert [1, 2, 3, 4] == trainee.seqs
    assert isinstance(trainee.port.ran[3], OptimStep)


def test_a_part_that_fails_fails_the_batch() -> None:
    trainee = Trainee(max_datums=1)
    failure = errors.RequestFailedError("no", request_id="r", category="server")
    trainee.port.failures[2] = failure
    with pytest.raises(errors.RequestFailedError, match="no"):
        trainee.client.forward_backward(data(1, 2, 3), "cross_entropy").result(5)
    trainee.client.optim_step(ADAM).result(5)
    assert [1, 2, 3, 4] == trainee.seqs


@pytest.mark.parametrize("name", ["forward", "forward_backward"])
def test_an_empty_batch_is_refused_at_the_call_and_takes_no_number(name: str) -> None:
    trainee = Trainee()
    with pytest.raises(ValueError, match="at least one datum"):
        getattr(trainee.client, name)([], "cross_entropy")
    trainee.client.optim_step(ADAM).result(5)
    assert [1] == trainee.seqs


# --- many threads, floors, giving up --------------------------------------------------------------


def test_threads_get_numbers_without_gaps_and_batches_stay_together() -> None:
    trainee = Trainee(max_datums=1)
    barrier = threading.Barrier(8)
    futures: list[Any] = []

    def train(token: int) -> None:
        barrier.wait(5)
        pair = data(token, token)
        futures.extend(trainee.client.forward_backward(pair, "cross_entropy") for _ in range(10))

    threads = [threading.Thread(target=train, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    for future in futures:
        future.result(10)
    ran = sorted(trainee.port.ran, key=lambda operation: operation.seq)
    assert list(range(1, 161)) == [operation.seq for operation in ran]
    tokens = [op.data[0].model_input.to_ints()[0] for op in ran if isinstance(op, ForwardBackward)]
    assert tokens[0::2] == tokens[1::2]


def test_the_floor_is_the_lowest_number_that_is_still_open() -> None:
    trainee = Trainee()
    gate = trainee.port.gates[1] = asyncio.Event()
    first = trainee.client.optim_step(ADAM)
    for _ in range(3):
        trainee.client.optim_step(ADAM).result(5)
    assert [1, 1, 1, 1] == trainee.port.floors
    _open(gate)
    first.result(5)
    trainee.client.optim_step(ADAM).result(5)
    assert 5 == trainee.port.floors[-1]


def test_failures_raise_the_floor_too() -> None:
    trainee = Trainee()
    trainee.port.failures[1] = errors.APIConnectionError()
    with pytest.raises(errors.APIConnectionError):
        trainee.client.optim_step(ADAM).result(5)
    trainee.client.optim_step(ADAM).result(5)
    assert [1, 2] == trainee.port.floors


async def test_a_caller_who_gives_up_does_not_stop_the_operation() -> None:
    trainee = Trainee()
    gate = trainee.port.gates[1] = asyncio.Event()
    future = trainee.client.optim_step(ADAM)
    with pytest.raises(TimeoutError):
        await future.result_async(timeout=0.001)
    _open(gate)
    await trainee.client.optim_step(ADAM)
    assert ([1, 2], 0) == (trainee.seqs, trainee.port.num_cancelled)


def _open(gate: asyncio.Event) -> None:
    Bridge.get().loop.call_soon_threadsafe(gate.set)


# --- what comes out of a training client ----------------------------------------------------------


def test_a_snapshot_gives_a_sampler_of_its_own_session() -> None:
    trainee = Trainee()
    retry = RetryConfig(max_connections=3)
    first = trainee.client.save_weights_and_get_sampling_client(retry_config=retry)
    second = trainee.client.save_weights_and_get_sampling_client("ignored")
    assert [
        SaveForSampler(1, sampling_session_seq_id=0, kind="snapshot"),
        SaveForSampler(2, sampling_session_seq_id=1, kind="snapshot"),
    ] == trainee.port.ran
    assert ("S1:sample:0", "S1:sample:1") == (first.sampling_session_id, second.sampling_session_id)
    assert (retry, None) == (first.retry_config, second.retry_config)


async def test_the_kind_of_a_snapshot_and_what_is_recorded_reach_the_service() -> None:
    trainee = Trainee()
    sampler = trainee.client.save_weights_and_get_sampling_client(
        record_stability_info=True, kind="inflight"
    )
    other = await trainee.client.create_sampling_client_async(
        "tinker://m/sampler_weights/b", record_stability_info=True
    )
    plain = await trainee.client.save_weights_and_get_sampling_client_async()
    assert [True, True, False] == [
        (await client).record_stability_info for client in (sampler, other, plain)
    ]
    assert ["inflight", "snapshot"] == [
        operation.kind for operation in trainee.port.ran if isinstance(operation, SaveForSampler)
    ]


def test_a_snapshot_knows_the_base_model_once_the_client_does() -> None:
    trainee = Trainee()
    info = GetInfoResponse(model_id="S1:train:0", model_data=ModelData(model_name="base"))
    trainee.runtime.registry_answers["get_info"] = info
    trainee.client.get_info()
    sampler = trainee.client.save_weights_and_get_sampling_client()
    assert "base" == sampler.get_base_model()
    assert 1 == len(trainee.runtime.calls)


async def test_a_snapshot_can_be_a_future_that_is_there_at_once() -> None:
    trainee = Trainee()
    gate = trainee.port.gates[1] = asyncio.Event()
    future = trainee.client.save_weights_and_get_sampling_client_submit()
    step = trainee.client.optim_step(ADAM)
    await step
    assert not future.done()
    _open(gate)
    assert "S1:sample:0" == (await future).sampling_session_id


async def test_snapshots_and_sampling_sessions_share_a_counter() -> None:
    trainee = Trainee()
    await trainee.client.save_weights_and_get_sampling_client_async()
    sampler = await trainee.client.create_sampling_client_async("tinker://m/sampler_weights/b")
    assert "S1:sample:1" == sampler.sampling_session_id
    assert ("create_sampling_session", 1, None, "tinker://m/sampler_weights/b") in (
        trainee.runtime.calls
    )


def test_a_snapshot_that_gets_no_session_number_leaves_no_gap() -> None:
    trainee = Trainee()

    class Lost(FakeRuntime):
        async def number(self, kind: NumberKind) -> int:  # noqa: ARG002 - the protocol's
            raise errors.ActorLostError("the session's actor is gone")

    trainee.runtime = Lost()
    with pytest.raises(errors.ActorLostError):
        trainee.client.save_weights_and_get_sampling_client()
    trainee.client.optim_step(ADAM).result(5)
    assert [1, 2] == sorted(trainee.seqs)


def test_a_snapshot_without_a_session_is_refused() -> None:
    trainee = Trainee()

    class Odd(FakeTrainingPort):
        async def run(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401
            return SaveWeightsForSamplerResponseInternal(path="tinker://m/sampler_weights/b")

    trainee.client._operations.port = Odd()
    with pytest.raises(errors.APIResponseValidationError, match="no sampling session"):
        trainee.client.save_weights_and_get_sampling_client()


async def test_info_is_asked_for_once() -> None:
    trainee = Trainee()
    info = GetInfoResponse(model_id="S1:train:0", model_data=ModelData(model_name="base"))
    trainee.runtime.registry_answers["get_info"] = info
    assert info == await trainee.client.get_info_async()
    assert info == trainee.client.get_info() == await trainee.client.get_info_async()
    assert [("get_info", {"model_id": "S1:train:0"})] == trainee.runtime.calls


def test_info_that_could_not_be_got_is_asked_for_again() -> None:
    trainee = Trainee()
    failure = errors.APIConnectionError()

    class Silent(FakeRuntime):
        async def call(self, name: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
            if not self.calls:
                self.calls.append((name, arguments))
                raise failure
            return await super().call(name, arguments)

    info = GetInfoResponse(model_id="S1:train:0", model_data=ModelData(model_name="base"))
    trainee.runtime = Silent(registry_answers={"get_info": info})
    with pytest.raises(errors.APIConnectionError):
        trainee.client.get_info()
    assert info == trainee.client.get_info()


def test_the_tokenizer_is_the_one_that_the_service_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class AutoTokenizer:
        @staticmethod
        def from_pretrained(source: str, **_: Any) -> str:  # noqa: ANN401
            return f"of {source}"

    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoTokenizer=AutoTokenizer))
    trainee = Trainee()
    data = ModelData(model_name="base", tokenizer_id="org/tokenizer")
    trainee.runtime.registry_answers["get_info"] = GetInfoResponse(model_id="m", model_data=data)
    found: Any = trainee.client.get_tokenizer()
    assert "of org/tokenizer" == found


async def test_a_client_is_its_own_finished_future() -> None:
    client = Trainee().client
    assert client is await client
    assert client is client.result() is await client.result_async()


def test_a_pause_of_the_service_is_told_of_only_after_a_long_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Trainee().client
    client.on_queue_state_change(QueueState.PAUSED_CAPACITY, "full")
    client.on_queue_state_change(QueueState.ACTIVE)
    assert [] == caplog.records


def test_the_repr_tells_the_model() -> None:
    assert "TrainingClient('S1:train:0')" == repr(Trainee().client)
