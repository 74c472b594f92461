from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.ports import FakeRuntime
from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.holder import ClientConnectionPoolType, Holder, TelemetryProvider
from tinker_ray.clients.session import ClientSession
from tinker_ray.config import Settings
from tinker_ray.core.link import Link
from tinker_ray.errors import ConfigurationError
from tinker_ray.transport.scripted import ScriptedTransport, answer
from tinker_ray.types import ListSessionsResponse
from tinker_ray.wire.endpoint import Traffic


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


# --- requests by path -----------------------------------------------------------------------------


def ask(made: Holder, method: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
    async def work() -> Any:  # noqa: ANN401
        with made.aclient(ClientConnectionPoolType.SESSION) as client:
            return await getattr(client, method)(*arguments, **options)

    try:
        return made.run_coroutine_threadsafe(work()).result(5)
    finally:
        made.close()


def over(script: dict[str, list[Any]]) -> tuple[Holder, ScriptedTransport]:
    transport = ScriptedTransport(script)

    async def connector(_: Settings) -> Link:
        return Link(transport)

    return Holder(ClientSession(Settings(mode="local"), connector=connector)), transport


def test_a_request_by_path_goes_as_any_other() -> None:
    made, transport = over({"/api/v1/sessions": [answer({"sessions": ["a"]})]})
    listed = ask(
        made,
        "get",
        "/api/v1/sessions",
        cast_to=ListSessionsResponse,
        options={"params": {"limit": 3}},
    )
    assert ListSessionsResponse(sessions=["a"]) == listed
    sent = transport.sent[0].request
    assert ("GET", {"limit": 3}, Traffic.SESSION) == (
        sent.endpoint.method,
        sent.query,
        sent.endpoint.traffic,
    )


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_a_body_is_sent_as_json_and_the_answer_given_as_it_is(method: str) -> None:
    made, transport = over({"/api/v1/new": [answer({"is": "new"})]})
    assert {"is": "new"} == ask(made, method, "/api/v1/new", body={"a": 1})
    assert {"a": 1} == transport.sent[0].json()


def test_an_answer_cast_to_nothing_is_none() -> None:
    made, _ = over({"/api/v1/new": [answer({"is": "new"})]})
    assert ask(made, "post", "/api/v1/new", body={}, cast_to=type(None)) is None


def test_a_path_begins_with_a_slash() -> None:
    made, _ = over({})
    with pytest.raises(ConfigurationError, match="slash"):
        ask(made, "get", "api/v1/x")


def test_the_numbers_of_models_are_the_sessions() -> None:
    made = holder(FakeRuntime())
    assert [0, 1] == [made.get_training_client_id() for _ in range(2)]
