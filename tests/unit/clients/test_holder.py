from __future__ import annotations

import asyncio

from tests.fakes.ports import FakeRuntime
from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.holder import Holder, TelemetryProvider
from tinker_ray.clients.session import ClientSession
from tinker_ray.config import Settings


def holder(runtime: FakeRuntime) -> Holder:
    async def open_runtime(*_: object, **__: object) -> FakeRuntime:
        return runtime

    return Holder(ClientSession(Settings(mode="local"), None, opener=open_runtime))


def test_the_session_is_opened_when_its_id_is_asked_for() -> None:
    made = holder(FakeRuntime())
    assert "idle" in repr(made)
    assert ("S1", "S1") == (made.get_session_id(), made._session_id)
    assert "open" in repr(made)


def test_work_runs_on_the_clients_loop() -> None:
    made = holder(FakeRuntime())

    async def where() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def twice() -> asyncio.AbstractEventLoop:
        return await made.execute_with_retries(where)

    assert Bridge.get().loop is made.get_loop()
    assert Bridge.get().loop is made.run_coroutine_threadsafe(twice()).result(5)


def test_closing_finishes_the_session() -> None:
    runtime = FakeRuntime()
    made = holder(runtime)
    made.get_session_id()
    made.close()
    made.close()
    assert [("aclose", "success", None)] == runtime.calls


def test_what_has_telemetry_is_told_from_what_has_none() -> None:
    class Provider:
        def get_telemetry(self) -> None:
            return None

    assert isinstance(Provider(), TelemetryProvider)
    assert isinstance(holder(FakeRuntime()), TelemetryProvider)
    assert not isinstance(FakeRuntime(), TelemetryProvider)
