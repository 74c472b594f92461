from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.clock import settle
from tinker_ray import errors
from tinker_ray.core.link import Link
from tinker_ray.core.operation import (
    ForwardBackward,
    LoadState,
    Operation,
    OptimStep,
    SaveForSampler,
    SaveState,
    encode,
)
from tinker_ray.core.training import TrainingCore
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Request, Response
from tinker_ray.transport.scripted import answer
from tinker_ray.types import AdamParams, Datum, ImageAssetPointerChunk, ModelInput
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
