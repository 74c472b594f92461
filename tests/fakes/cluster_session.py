"""A cluster runtime on a toy service, for tests on real Ray; and deaths of its actors."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.handles.remote import Patience
from actors.runtime import ClusterRuntime
from actors.starting import ClusterOptions
from tests.fakes.toy_service import ToyServer, ToyService, toy_sample
from tinker_ray.config import EMBEDDED_API_KEY, Settings
from tinker_ray.errors import ActorLostError
from tinker_ray.types import ModelInput, SamplingParams
from tinker_ray.wire.request import SampleRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors.handles.remote import RemoteActor
    from tinker_ray.types import SampleResponse

OPTIONS = ClusterOptions(patience=Patience(start_s=120.0, silence_s=60.0, probe_s=1.0))


@dataclass(frozen=True)
class ClusterSession:
    """A runtime, the service behind it, and a sampling session."""

    toy: ToyService
    runtime: ClusterRuntime
    sampling_session_id: str

    def request(self, seed: int) -> SampleRequest:
        """A seeded request of its own."""
        return SampleRequest(
            ModelInput.from_ints([1, 2, seed]),
            SamplingParams(max_tokens=4, seed=seed),
            sampling_session_id=self.sampling_session_id,
        )


@asynccontextmanager
async def cluster_session(
    toy: ToyService, options: ClusterOptions = OPTIONS
) -> AsyncIterator[ClusterSession]:
    """Open a runtime on a toy service, and close it."""
    with ToyServer(toy) as server:
        settings = Settings.from_env(base_url=server.url, api_key=EMBEDDED_API_KEY)
        runtime = await ClusterRuntime.open(settings, options=options)
        try:
            session_id = await runtime.session.create_sampling_session(0, base_model="toy")
            yield ClusterSession(toy, runtime, session_id)
        finally:
            await runtime.aclose()


async def all_samplers_up(session: ClusterSession) -> None:
    """Return when every sampler of the pool has given a sign of life."""
    members = session.runtime.sampling.choice.members
    while not all(member.is_ready for member in members.values()):  # noqa: ASYNC110 - of processes
        await asyncio.sleep(0.05)


def expected_tokens(seed: int) -> list[int]:
    """What a request of this seed draws, whoever draws it and however often."""
    body = {
        "sampling_params": {"seed": seed, "max_tokens": 4},
        "prompt": {"chunks": [{"tokens": [1, 2, seed]}]},
    }
    tokens: list[int] = toy_sample(body)["sequences"][0]["tokens"]
    return tokens


def tokens(response: SampleResponse) -> list[int]:
    """The tokens of the first sequence."""
    return response.sequences[0].tokens


async def kill(remote: RemoteActor) -> int:
    """SIGKILL the process of an actor, as soon as it lives, and return its number."""
    while True:
        try:
            pid: int = (await remote.ping()).pid
        except ActorLostError:
            await asyncio.sleep(0.05)  # it is being restarted by Ray
        else:
            os.kill(pid, signal.SIGKILL)
            return pid
