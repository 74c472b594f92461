from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actors.checkpoint import CheckpointActor
from actors.handles.checkpoint import CheckpointHandle
from tests.fakes.remote_actor import FakeRemote
from tests.unit.actors.conftest import SERVICE
from tinker_ray.config import Secret
from tinker_ray.core.link import Link
from tinker_ray.errors import ActorLostError
from tinker_ray.transport.scripted import ScriptedTransport, answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SESSIONS, COPY = "/api/v1/sessions", "/api/v1/copy_weights"
PAGE = {"limit": 20, "offset": 0, "access_scope": "owned"}
DELETED = "/api/v1/training_runs/r/checkpoints/weights/a"


class Registry:
    """The handle of a checkpoint actor, which is started by the first call."""

    def __init__(self) -> None:
        self.of_actor = ScriptedTransport(
            {SESSIONS: [answer({"sessions": ["a"]})] * 9, DELETED: [answer({})] * 9}
        )
        self.of_process = ScriptedTransport(
            {COPY: [answer({"tinker_path": "tinker://r/weights/b"})]}
        )
        self.started: list[FakeRemote] = []
        self.handle = CheckpointHandle(self._start, self._link)

    def _start(self) -> Any:  # noqa: ANN401 - a fake
        self.started.append(
            FakeRemote(lambda: CheckpointActor(SERVICE, link=Link(self.of_actor)), "checkpoint")
        )
        return self.started[-1]

    async def _link(self) -> Link:
        return Link(self.of_process)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    made = Registry()
    yield made
    await made.handle.aclose()


async def test_calls_share_an_actor_that_is_started_by_the_first(registry: Registry) -> None:
    assert [] == registry.started
    for _ in range(2):
        listed = await registry.handle.call("list_sessions", PAGE)
        assert ["a"] == listed.sessions
    assert 1 == len(registry.started)


async def test_reading_survives_the_death_of_the_actor_and_changes_do_not(
    registry: Registry,
) -> None:
    await registry.handle.call("list_sessions", PAGE)
    [remote] = registry.started
    remote.deaths = 3
    assert ["a"] == (await registry.handle.call("list_sessions", PAGE)).sessions
    remote.deaths = 1
    with pytest.raises(ActorLostError):
        await registry.handle.call("delete_checkpoint", {"tinker_path": "tinker://r/weights/a"})


async def test_a_call_with_a_secret_never_reaches_the_actor(registry: Registry) -> None:
    arguments = {
        "source_path": "tinker://r/weights/a",
        "destination_project_id": "p",
        "ttl_seconds": None,
        "weights_access_token": Secret("hush"),
    }
    await registry.handle.call("copy_weights", arguments)
    assert [] == registry.started
    assert [COPY] == registry.of_process.paths()
