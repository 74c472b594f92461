"""Our core does what our engine asks for: each wish, end to end in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fakes import engine as fakes
from tests.fakes.engine import MODEL
from tests.fakes.running_engine import Running
from tinker_ray import errors
from tinker_ray.config import Secret, Settings
from tinker_ray.core.connection import connect
from tinker_ray.core.download import download_checkpoint
from tinker_ray.core.link import Link
from tinker_ray.core.operation import ForwardBackward, OptimStep, SaveForSampler, SaveState
from tinker_ray.core.runtime import LocalRuntime
from tinker_ray.core.session import ModelHandle, SessionCore, create_session
from tinker_ray.engine.client_flags import ClientFlags
from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.settings import HostSettings
from tinker_ray.transport.auth import Credentials
from tinker_ray.transport.http import HttpTransport
from tinker_ray.transport.jwt import ExchangedToken
from tinker_ray.types import (
    AdamParams,
    Datum,
    ForwardBackwardOutput,
    LoraConfig,
    ModelInput,
    SampleResponse,
    SamplingParams,
    TensorData,
)
from tinker_ray.wire.chunking import join
from tinker_ray.wire.request import SampleRequest

SETTINGS = Settings(api_key=Secret("tml-tests"), base_url="http://engine")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return BaseModel.load(MODEL, fakes.write_model(tmp_path_factory.mktemp("model")))


class World:
    """A runtime of ours, the engine behind it, and the requests between them."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.requests: list[httpx.Request] = []
        self.runtime: LocalRuntime
        self.link: Link

    async def open(self) -> None:
        await self.running.start()
        self.link = await connect(SETTINGS, transport=self.transport)
        session_id = await create_session(self.link, tags=(), user_metadata=None)
        self.runtime = LocalRuntime(self.link, SessionCore(self.link, session_id))

    def transport(self, settings: Settings, credentials: Credentials) -> HttpTransport:
        async def remember(request: httpx.Request) -> None:
            self.requests.append(request)

        return HttpTransport(
            settings.base_url,
            credentials,
            make_client=lambda: httpx.AsyncClient(
                transport=httpx.ASGITransport(self.running.app),
                event_hooks={"request": [remember]},
            ),
        )

    async def close(self) -> None:
        await self.runtime.aclose()
        await self.running.stop()

    def sent(self, path: str) -> list[httpx.Request]:
        return [item for item in self.requests if item.url.path == f"/api/v1/{path}"]

    async def model(self) -> ModelHandle:
        return await self.runtime.session.create_model(0, MODEL, LoraConfig(rank=4, seed=1))

    async def sampler(self) -> str:
        return await self.runtime.session.create_sampling_session(0, base_model=MODEL)

    async def sample(self, sampler: str, **changes: Any) -> SampleResponse:  # noqa: ANN401
        request = SampleRequest(
            ModelInput.from_ints([5, 6, 7]),
            SamplingParams(max_tokens=4, seed=7, stop=[]),
            sampling_session_id=sampler,
        )
        return await self.runtime.sampling.sample(replace(request, **changes))


Opener = Callable[..., Any]


@pytest.fixture
async def world(base: BaseModel, tmp_path: Path) -> AsyncIterator[Opener]:
    @asynccontextmanager
    async def opened(*, wire: Any = "both", **flags: Any) -> AsyncIterator[World]:  # noqa: ANN401
        settings = HostSettings(
            gap_timeout_s=5.0, large_result_bytes=1, wire=wire, flags=ClientFlags(**flags)
        )
        world = World(Running(base, tmp_path / "data", settings))
        await world.open()
        try:
            yield world
        finally:
            await world.close()

    yield opened
    await asyncio.get_running_loop().shutdown_default_executor()


async def until(happened: Callable[[], bool]) -> None:
    """Let the engine work until something has happened; the test's timeout is the bound."""
    while not happened():  # noqa: ASYNC110 - what happens is on the other side of HTTP
        await asyncio.sleep(0.001)


def batch(num_datums: int) -> list[Datum]:
    random = np.random.default_rng(0)
    data = []
    for length in random.integers(3, 9, num_datums).tolist():
        tokens = random.integers(3, 90, length + 1)
        inputs = {
            "target_tokens": TensorData.from_numpy(tokens[1:]),
            "weights": TensorData.from_numpy(np.ones(length, np.float32)),
        }
        data.append(Datum(ModelInput.from_ints(tokens[:-1].tolist()), inputs))
    return data


async def train(world: World, num_parts: int) -> tuple[ForwardBackwardOutput, list[float | None]]:
    """Train one step on a batch in parts; return what came out, and the logprobs after it."""
    model = await world.model()
    training = await world.runtime.open_training(model)
    data = batch(2 * num_parts)
    parts = [
        ForwardBackward(
            1 + part,
            data[2 * part : 2 * part + 2],
            "cross_entropy",
            part=part,
            num_parts=num_parts,
        )
        for part in range(num_parts)
    ]
    *outputs, _, saved = await asyncio.gather(
        *(training.run(part) for part in parts),
        training.run(OptimStep(1 + num_parts, AdamParams(learning_rate=0.05))),
        training.run(SaveForSampler(2 + num_parts, sampling_session_seq_id=0)),
    )
    scored = await world.sample(saved.sampling_session_id, prompt_logprobs=True)
    return join(outputs, [2] * num_parts), (scored.prompt_logprobs or [])[1:]


async def test_parts_of_a_batch_may_arrive_in_any_order_and_compressed(world: Opener) -> None:
    results = {}
    for parallel in (False, True):
        async with world(parallel_fwdbwd_chunks=parallel, proto_compress_fwdbwd=parallel) as opened:
            output, after = await train(opened, 5)
            results[parallel] = (output.metrics["loss:sum"], after)
            encodings = {
                item.headers.get("content-encoding") for item in opened.sent("forward_backward")
            }
            assert {"zstd" if parallel else None} == encodings
    assert results[False] == results[True]


async def test_one_poll_serves_all_samples_of_a_sampler(world: Opener) -> None:
    async with world(sample_use_retrieve_futures=True) as opened:
        sampler = await opened.sampler()
        responses = await asyncio.gather(
            *(opened.sample(sampler, num_samples=2) for _ in range(20))
        )
        assert {2} == {len(item.sequences) for item in responses}
        assert 1 <= len(opened.sent("retrieve_futures")) <= 40
        assert 20 == len(opened.sent("retrieve_future"))
        poller = opened.runtime.sampling._sessions[sampler].poller
        assert poller is not None
        await until(lambda: poller.is_idle)  # what was fetched is being reported


async def test_large_results_are_announced_first(world: Opener) -> None:
    async with world(inflight_response_bytes_semaphore_size=10) as opened:
        sampler = await opened.sampler()
        responses = await asyncio.gather(*(opened.sample(sampler) for _ in range(5)))
        assert 5 == len({id(item) for item in responses})
        assert len(opened.sent("retrieve_future")) >= 10


async def test_keys_are_exchanged_for_tokens(world: Opener) -> None:
    async with world(pjwt_auth_enabled=True) as opened:
        sampler = await opened.sampler()
        await opened.sample(sampler)
        assert isinstance(opened.link.credentials, ExchangedToken)
        assert 1 == len(opened.sent("auth/token"))
        keys = {item.headers["x-api-key"] for item in opened.sent("asample")}
        assert all(key.startswith("eyJ") for key in keys)
        who = await opened.runtime.registry.whoami()
        assert who.org_urn.startswith("tml:organization:")


async def test_a_plain_key_does_not_say_who_it_is(world: Opener) -> None:
    async with world() as opened:
        with pytest.raises(errors.UnfulfilledError):
            await opened.runtime.registry.whoami()


async def test_a_further_client_of_a_sampler_is_numbered_by_the_engine(world: Opener) -> None:
    async with world(sample_join_sampling_session=True) as opened:
        sampler = await opened.sampler()
        numbers = [await opened.runtime.session.join_sampling_session(sampler) for _ in range(2)]
        assert [1, 2] == numbers


async def test_a_cancelled_sample_is_cancelled_at_the_engine(world: Opener) -> None:
    async with world(sample_cancel_enabled=True) as opened:
        sampler = await opened.sampler()
        params = SamplingParams(max_tokens=200, stop=[])  # long enough to be cancelled in time
        task = asyncio.create_task(opened.sample(sampler, sampling_params=params, num_samples=64))
        await until(lambda: bool(opened.sent("retrieve_future")))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: bool(opened.sent("cancel_future")))


async def test_a_service_of_the_json_era_trains_and_samples_too(world: Opener) -> None:
    async with world(wire="json") as opened:
        assert not opened.link.flags.protobuf
        output, after = await train(opened, 3)
        assert 6 == len(output.loss_fn_outputs)
        assert 2 == len(after)
        training = await opened.runtime.open_training(ModelHandle("unused"))
        await training.aclose()


async def test_both_eras_compute_the_same(world: Opener) -> None:
    results = []
    for wire in ("json", "protobuf"):
        async with world(wire=wire) as opened:
            output, after = await train(opened, 2)
            results.append((output.metrics["loss:sum"], after))
    (old_loss, old_after), (new_loss, new_after) = results
    assert pytest.approx(old_loss, rel=1e-6) == new_loss
    assert pytest.approx(old_after, rel=1e-5) == new_after


@pytest.mark.parametrize("wire", ["json", "both"])
async def test_an_archive_is_downloaded_and_verified(
    world: Opener, tmp_path: Path, wire: str
) -> None:
    async with world(wire=wire) as opened:
        model = await opened.model()
        training = await opened.runtime.open_training(model)
        saved = await training.run(SaveState(1, "a"))
        target = tmp_path / "archive.tar"
        found = await download_checkpoint(
            SETTINGS,
            opened.runtime.flags,
            opened.runtime.registry,
            saved.path,
            target,
            transport=opened.transport,
        )
        assert found.verified
        assert target.stat().st_size == found.num_bytes > 1000


@pytest.mark.parametrize("wire", ["json", "protobuf"])
async def test_a_checkpoint_is_trained_further(world: Opener, wire: str) -> None:
    async with world(wire=wire) as opened:
        model = await opened.model()
        training = await opened.runtime.open_training(model)
        saved = await training.run(SaveState(1, "a"))
        further = await opened.runtime.session.create_model_from_state(
            1, saved.path, optimizer=True
        )
        assert further.model_id != model.model_id
        again = await opened.runtime.open_training(further)
        await again.run(OptimStep(further.first_seq, AdamParams()))
