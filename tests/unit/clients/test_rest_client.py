from __future__ import annotations

import inspect
from typing import Any

import pytest

from tests.fakes.ports import FakeRuntime
from tinker_ray.clients.rest import RestClient
from tinker_ray.clients.session import ClientSession
from tinker_ray.config import Settings
from tinker_ray.core.registry import RegistryCore

STATE = "tinker://S1:train:0/weights/a"


def rest_over(runtime: FakeRuntime) -> RestClient:
    async def opener(*_: Any) -> FakeRuntime:  # noqa: ANN401
        return runtime

    return RestClient(ClientSession(Settings(), None, opener=opener))


CALLS: list[tuple[str, tuple[Any, ...], str, dict[str, Any]]] = [
    ("get_server_capabilities", (), "get_server_capabilities", {}),
    ("get_training_run", ("r",), "get_training_run", {"run_id": "r"}),
    ("get_training_run_by_tinker_path", (STATE,), "get_training_run", {"run_id": "S1:train:0"}),
    ("list_training_runs", (), "list_training_runs", {"limit": 20, "offset": 0}),
    ("list_training_runs", (5, 2), "list_training_runs", {"limit": 5, "offset": 2}),
    ("list_checkpoints", ("r",), "list_checkpoints", {"run_id": "r"}),
    ("list_user_checkpoints", (), "list_user_checkpoints", {"limit": 100, "offset": 0}),
    ("delete_checkpoint", ("S1:train:0", "weights/a"), "delete_checkpoint", {"tinker_path": STATE}),
    ("delete_checkpoint_from_tinker_path", (STATE,), "delete_checkpoint", {"tinker_path": STATE}),
    ("list_sessions", (), "list_sessions", {"limit": 20, "offset": 0}),
    ("get_session", ("S1",), "get_session", {"session_id": "S1"}),
    ("get_sampler", ("s",), "get_sampler", {"sampler_id": "s"}),
    ("get_weights_info_by_tinker_path", (STATE,), "weights_info", {"tinker_path": STATE}),
]


@pytest.mark.parametrize("method,arguments,name,expected", CALLS)
async def test_a_call_and_its_async_twin_ask_the_registry(
    method: str, arguments: tuple[Any, ...], name: str, expected: dict[str, Any]
) -> None:
    answer = None if name.startswith("delete") else "answer"
    runtime = FakeRuntime(registry_answers={name: answer})
    rest = rest_over(runtime)
    assert answer == getattr(rest, method)(*arguments).result(5)
    twin = getattr(rest, f"{method}_async", None)
    if twin is not None:
        assert answer == await twin(*arguments)
    assert {(name, str(expected))} == {(call, str(given)) for call, given in runtime.calls}


@pytest.mark.parametrize("method,arguments,name,expected", CALLS)
def test_the_registry_takes_what_the_client_gives(
    method: str, arguments: tuple[Any, ...], name: str, expected: dict[str, Any]
) -> None:
    inspect.signature(getattr(RegistryCore, name)).bind(None, **expected)


@pytest.mark.parametrize(
    "method,arguments",
    [
        ("get_training_run_by_tinker_path", ("x",)),
        ("delete_checkpoint", ("r", "a")),
        ("delete_checkpoint_from_tinker_path", ("tinker://r/a",)),
        ("get_weights_info_by_tinker_path", ("weights/a",)),
    ],
)
def test_a_malformed_path_is_refused_at_the_call(method: str, arguments: tuple[str, ...]) -> None:
    runtime = FakeRuntime()
    with pytest.raises(ValueError, match="invalid checkpoint path"):
        getattr(rest_over(runtime), method)(*arguments)
    assert [] == runtime.calls
