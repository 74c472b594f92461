from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.clock import SteppedClock, settle
from tinker_ray import errors
from tinker_ray.config import Secret
from tinker_ray.core.flags import ServerFlags
from tinker_ray.core.link import Link
from tinker_ray.core.operation import (
    ForwardBackward,
    LoadState,
    Operation,
    OptimStep,
    SaveExternal,
    SaveForSampler,
    SaveState,
    encode,
)
from tinker_ray.core.training import TrainingCore
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Request, Response
from tinker_ray.transport.scripted import answer
from tinker_ray.types import AdamParams, Datum, DimuonParams, ImageAssetPointerChunk, ModelInput
from tinker_ray.wire import codec

ADAM = AdamParams()


class Service:
    """Takes operations and keeps their promises when the test opens the gate of their number."""

    def __init__(self) -> None:
        self.submitted: list[int] = []
        self.refusals: dict[int, Response] = {}
        self.held: dict[int, asyncio.Event] = {}
        self.num_polls = 0

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:  # noqa: ARG002
        body = json.loads(request.content)
        if request.path.endswith("/retrieve_future"):
            self.num_polls += 1
            seq = int(body["request_id"])
            if seq in self.held:
                await self.held[seq].wait()
            return answer({"metrics": {"seq:sum": seq}})
        seq = body["seq_id"]
        self.submitted.append(seq)
        await asyncio.sleep(0)
        return self.refusals.get(seq) or answer({"request_id": str(seq)})

    async def aclose(self) -> None: ...


def core_over(service: Service, first_seq: int = 1) -> TrainingCore:
    return TrainingCore(Link(service, VirtualClock()), "S1:train:0", first_seq=first_seq)


def start(core: TrainingCore, seq: int, floor: int = 0) -> asyncio.Task[object]:
    return asyncio.create_task(core.run(OptimStep(seq, ADAM), floor))


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(1, 8)))
def test_operations_reach_the_wire_in_order_however_they_arrive(order: list[int]) -> None:
    async def scenario() -> None:
        service = Service()
        core = core_over(service)
        tasks = {}
        for seq in order:
            tasks[seq] = start(core, seq)
            await asyncio.sleep(0)
        for seq, task in tasks.items():
            assert {"seq:sum": seq} == (await task).metrics  # type: ignore[attr-defined]
        assert list(range(1, 8)) == service.submitted

    asyncio.run(scenario())


async def test_the_next_operation_is_sent_while_its_predecessor_is_computed() -> None:
    service = Service()
    service.held[1] = asyncio.Event()
    core = core_over(service)
    first, second = start(core, 1), start(core, 2)
    await second
    assert not first.done()
    service.held[1].set()
    await first


async def test_a_repeated_operation_joins_the_first_execution() -> None:
    service = Service()
    service.held[1] = asyncio.Event()
    core = core_over(service)
    tasks = [start(core, 1) for _ in range(3)]
    await settle()
    service.held[1].set()
    assert 1 == len({id(result) for result in await asyncio.gather(*tasks)})
    assert [1] == service.submitted


async def test_a_repetition_after_the_end_gets_the_same_result() -> None:
    service = Service()
    core = core_over(service)
    assert await start(core, 1) is await start(core, 1)
    assert [1] == service.submitted


async def test_results_below_the_floor_are_forgotten() -> None:
    service = Service()
    core = core_over(service)
    await start(core, 1)
    await start(core, 2, floor=2)
    assert "running=[2]" in repr(core)
    with pytest.raises(errors.StaleHandleError, match="number 1"):
        await start(core, 1, floor=2)


async def test_an_operation_whose_submission_fails_lets_the_next_pass() -> None:
    service = Service()
    service.refusals[1] = answer({"detail": "no"}, status=422)
    core = core_over(service)
    first, second = start(core, 1), start(core, 2)
    with pytest.raises(errors.UnprocessableEntityError):
        await first
    await second
    assert [1, 2] == service.submitted


async def test_an_operation_that_cannot_be_encoded_lets_the_next_pass() -> None:
    service = Service()
    core = core_over(service)
    pointer = Datum(ModelInput([ImageAssetPointerChunk("x", "png")]))
    first = asyncio.create_task(core.run(ForwardBackward(1, [pointer], "ppo")))
    second = start(core, 2)
    with pytest.raises(errors.WireFormatError):
        await first
    await second
    assert [2] == service.submitted


async def test_a_caller_who_gives_up_loses_no_number() -> None:
    service = Service()
    core = core_over(service)
    second = start(core, 2)
    await settle()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    third = start(core, 3)
    await start(core, 1)
    await third
    assert [1, 2, 3] == service.submitted


async def test_numbers_that_nobody_will_bring_are_passed_over() -> None:
    service = Service()
    core = core_over(service)
    await start(core, 5, floor=5)
    assert [5] == service.submitted


async def test_the_first_number_follows_what_the_creation_used() -> None:
    service = Service()
    core = core_over(service, first_seq=2)
    await start(core, 2)
    assert [2] == service.submitted


async def test_closing_answers_everybody_and_twice_is_fine() -> None:
    service = Service()
    service.held[1] = asyncio.Event()
    core = core_over(service)
    polling, waiting = start(core, 1), start(core, 3)
    await settle()
    await core.aclose()
    await core.aclose()
    for task in (polling, waiting):
        with pytest.raises(errors.StaleHandleError, match="closed"):
            await task


# --- the parts of one batch -----------------------------------------------------------------------


class BatchService:
    """Takes parts of batches, each when the test lets it, and fails their promises."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.arrived: list[int] = []
        self.encodings: list[str | None] = []
        self.held: dict[int, asyncio.Event] = {}

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:  # noqa: ARG002
        if request.path.endswith("/retrieve_future"):
            return answer({"error": "not computed here", "category": "server"})
        self.encodings.append(request.headers.get("Content-Encoding"))
        content = request.content
        if self.encodings[-1] == "zstd":
            content = zstandard.ZstdDecompressor().decompress(content)
        seq = codec.decode_forward_backward(content, request.content_type).seq_id
        assert seq is not None
        self.arrived.append(seq)
        if seq in self.held:
            await self.held[seq].wait()
        return answer({"request_id": str(seq)})

    async def aclose(self) -> None: ...

    def core(self, **flags: Any) -> TrainingCore:  # noqa: ANN401 - flags of all kinds
        link = Link(self, self.clock, replace(ServerFlags(), **flags))
        return TrainingCore(link, "S1:train:0")


def parts_of(core: TrainingCore, num_parts: int, first_seq: int = 1) -> list[asyncio.Task[object]]:
    datum = Datum(ModelInput.from_ints([1, 2, 3]))
    return [
        asyncio.create_task(
            core.run(
                ForwardBackward(
                    first_seq + part, [datum], "cross_entropy", part=part, num_parts=num_parts
                )
            )
        )
        for part in range(num_parts)
    ]


async def outcomes(tasks: list[asyncio.Task[object]]) -> set[type]:
    return {type(item) for item in await asyncio.gather(*tasks, return_exceptions=True)}


async def test_the_parts_of_a_batch_arrive_side_by_side_and_the_first_one_last() -> None:
    service = BatchService()
    service.held = {2: asyncio.Event()}
    tasks = parts_of(service.core(), 4)
    await settle()
    assert [2, 3, 4] == service.arrived
    service.held[2].set()
    assert {errors.RequestFailedError} == await outcomes(tasks)
    assert [2, 3, 4, 1] == service.arrived


async def test_a_service_that_wants_order_gets_it() -> None:
    service = BatchService()
    service.held = {1: asyncio.Event()}
    tasks = parts_of(service.core(parallel_fwdbwd_chunks=False), 4)
    await settle()
    assert [1] == service.arrived
    service.held[1].set()
    await outcomes(tasks)
    assert [1, 2, 3, 4] == service.arrived


async def test_batches_keep_their_order() -> None:
    service = BatchService()
    core = service.core()
    later = parts_of(core, 3, first_seq=4)
    earlier = parts_of(core, 3)
    await outcomes([*earlier, *later])
    assert [2, 3, 1, 5, 6, 4] == service.arrived


async def test_a_long_batch_takes_several_turns() -> None:
    service = BatchService()
    await outcomes(parts_of(service.core(), 70))
    expected = [*range(2, 33), 1, *range(34, 65), 33, *range(66, 71), 65]
    assert expected == service.arrived


async def test_a_part_that_does_not_come_holds_up_the_first_for_a_second_only() -> None:
    service = BatchService()
    tasks = parts_of(service.core(), 3)
    tasks[1].cancel()  # before it has begun
    await service.clock.advance(0.9)
    assert [3] == service.arrived
    await service.clock.advance(0.2)
    assert [3, 1] == service.arrived
    await outcomes(tasks)


async def test_batches_are_sent_as_long_as_their_budget_lasts() -> None:
    service = BatchService()
    service.held = {2: asyncio.Event(), 3: asyncio.Event()}
    tasks = parts_of(service.core(fwdbwd_bytes=20), 4)  # a part weighs 12 bytes
    await settle()
    assert [2, 3] == service.arrived
    service.held[2].set()
    await settle()
    assert [2, 3, 4] == service.arrived
    service.held[3].set()
    await outcomes(tasks)


@pytest.mark.parametrize("wanted,encoding", [(True, "zstd"), (False, None)])
async def test_batches_are_compressed_if_the_service_wants_that(
    wanted: bool,  # noqa: FBT001
    encoding: str | None,
) -> None:
    service = BatchService()
    await outcomes(parts_of(service.core(proto_compress_fwdbwd=wanted), 1))
    assert [encoding] == service.encodings


@pytest.mark.leaks("threads that compress belong to the event loop")
async def test_a_large_batch_is_compressed_in_a_thread() -> None:
    service = BatchService()
    core = service.core(proto_compress_fwdbwd=True)
    datum = Datum(ModelInput.from_ints([1] * 20_000))
    with pytest.raises(errors.RequestFailedError):
        await core.run(ForwardBackward(1, [datum], "cross_entropy"))
    assert (["zstd"], [1]) == (service.encodings, service.arrived)


async def test_an_old_service_is_sent_nothing_compressed() -> None:
    service = BatchService()
    await outcomes(parts_of(service.core(protobuf=False, proto_compress_fwdbwd=True), 1))
    assert [None] == service.encodings


# --- what operations look like on the wire --------------------------------------------------------


@pytest.mark.parametrize(
    "operation,path,body",
    [
        (
            OptimStep(3, AdamParams(learning_rate=0.5)),
            "optim_step",
            {
                "adam_params": {
                    "learning_rate": 0.5,
                    "beta1": 0.9,
                    "beta2": 0.95,
                    "eps": 1e-12,
                    "weight_decay": 0.0,
                    "grad_clip_norm": 0.0,
                },
                "type": "optim_step",
            },
        ),
        (SaveState(3, "a"), "save_weights", {"path": "a", "type": "save_weights"}),
        (
            SaveState(3, "a", 3600, overwrite=True, user_metadata={"k": "v"}),
            "save_weights",
            {
                "path": "a",
                "ttl_seconds": 3600,
                "overwrite": True,
                "user_metadata": {"k": "v"},
                "type": "save_weights",
            },
        ),
        (
            LoadState(3, "tinker://r/weights/a", optimizer=False),
            "load_weights",
            {"path": "tinker://r/weights/a", "optimizer": False, "type": "load_weights"},
        ),
        (
            LoadState(3, "tinker://r/weights/a", True, Secret("token")),  # noqa: FBT003
            "load_weights",
            {
                "path": "tinker://r/weights/a",
                "optimizer": True,
                "weights_access_token": "token",
                "type": "load_weights",
            },
        ),
        (
            OptimStep(3, DimuonParams(learning_rate=0.5)),
            "optim_step",
            {
                "optimizer_params": {
                    "type": "dimuon",
                    "learning_rate": 0.5,
                    "grad_clip_norm": 0.0,
                    "beta1": 0.9,
                },
                "type": "optim_step",
            },
        ),
        (
            SaveForSampler(3, sampling_session_seq_id=1, kind="inflight"),
            "save_weights_for_sampler",
            {"sampling_session_seq_id": 1, "kind": "inflight", "type": "save_weights_for_sampler"},
        ),
        (
            SaveExternal(3, "a"),
            "save_weights_external",
            {"path": "a", "type": "save_weights_external"},
        ),
        (
            SaveExternal(3, "a", 3600, ("age1xyz",)),
            "save_weights_external",
            {
                "path": "a",
                "ttl_seconds": 3600,
                "age_encryption_recipients": ["age1xyz"],
                "type": "save_weights_external",
            },
        ),
        (
            SaveForSampler(3, "a"),
            "save_weights_for_sampler",
            {"path": "a", "type": "save_weights_for_sampler"},
        ),
        (
            SaveForSampler(3, sampling_session_seq_id=0),
            "save_weights_for_sampler",
            {"sampling_session_seq_id": 0, "type": "save_weights_for_sampler"},
        ),
    ],
)
def test_an_operation_says_on_the_wire_what_the_contract_says(
    operation: Operation, path: str, body: dict[str, object]
) -> None:
    encoded = encode(operation, "S1:train:0", protobuf=True)
    assert f"/api/v1/{path}" == encoded.endpoint.path
    assert {"model_id": "S1:train:0", "seq_id": 3, **body} == json.loads(encoded.body.content)


@pytest.mark.parametrize(
    "forward_only,protobuf,path,kind",
    [
        (False, True, "forward_backward", "ForwardBackward"),
        (True, True, "forward_backward", "Forward"),
        (False, False, "forward_backward", "ForwardBackward"),
        (True, False, "forward", "Forward"),
    ],
)
def test_forward_has_an_endpoint_of_its_own_in_json_only(
    forward_only: bool,  # noqa: FBT001
    protobuf: bool,  # noqa: FBT001
    path: str,
    kind: str,
) -> None:
    operation = ForwardBackward(1, [Datum(ModelInput.empty())], "ppo", {}, forward_only)
    encoded = encode(operation, "m", protobuf=protobuf)
    assert f"/api/v1/{path}" == encoded.endpoint.path
    assert (kind, protobuf) == (encoded.result.name, encoded.result.protobuf)
    decoded = codec.decode_forward_backward(encoded.body.content, encoded.body.content_type)
    assert (forward_only, 1) == (decoded.forward_only, decoded.seq_id)


def test_an_access_token_is_not_shown_and_does_not_leave_its_process() -> None:
    operation = LoadState(1, "tinker://r/weights/a", False, Secret("very-secret"))  # noqa: FBT003
    assert "very-secret" not in repr(operation)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(operation)
