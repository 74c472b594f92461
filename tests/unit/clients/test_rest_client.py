from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.ports import FakeRuntime
from tinker_ray.clients import registry_client
from tinker_ray.clients.admin import AdminClient
from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.holder import Holder
from tinker_ray.clients.pages import Pages
from tinker_ray.clients.rest import RestClient
from tinker_ray.clients.session import ClientSession
from tinker_ray.config import Secret, Settings
from tinker_ray.core.link import Link
from tinker_ray.core.registry import RegistryCore
from tinker_ray.errors import ConfigurationError
from tinker_ray.transport.scripted import ScriptedTransport, answer
from tinker_ray.types import (
    Checkpoint,
    CheckpointsListResponse,
    Cursor,
    ListSessionsResponse,
    SessionSearchRequest,
    TrainingRunsResponse,
)

STATE = "tinker://S1:train:0/weights/a"
EXPORT = "tinker://S1:train:0/external_weights/a"
OWNED = {"access_scope": "owned"}
SEARCH = SessionSearchRequest()
HUSH = "hush"
RUNS = {"limit": 20, "offset": 0} | OWNED | {"project_id": None}


class Rest:
    """A REST client over an open session whose registry is a fake."""

    def __init__(self, answers: dict[str, Any] | None = None) -> None:
        self.runtime = FakeRuntime(registry_answers=answers or {})
        session = ClientSession(Settings(mode="local"), opener=self._open)
        Bridge.get().submit(session.runtime()).result(5)
        self.client = RestClient(session)

    async def _open(self, *_: object) -> FakeRuntime:
        return self.runtime


CALLS: list[tuple[str, tuple[Any, ...], str, dict[str, Any]]] = [
    ("get_server_capabilities", (), "get_server_capabilities", {}),
    ("whoami", (), "whoami", {}),
    ("get_training_run", ("r",), "get_training_run", {"run_id": "r"} | OWNED),
    (
        "get_training_run_by_tinker_path",
        (STATE, "accessible"),
        "get_training_run",
        {"run_id": "S1:train:0", "access_scope": "accessible"},
    ),
    ("list_training_runs", (), "list_training_runs", RUNS),
    (
        "list_training_runs",
        (5, 2, "accessible", "p"),
        "list_training_runs",
        {"limit": 5, "offset": 2, "access_scope": "accessible", "project_id": "p"},
    ),
    ("list_checkpoints", ("r",), "list_checkpoints", {"run_id": "r"}),
    ("list_user_checkpoints", (), "list_user_checkpoints", {"limit": 100, "offset": 0}),
    (
        "get_checkpoint_archive_url",
        ("r", "weights/a"),
        "get_checkpoint_archive_url",
        {"run_id": "r", "checkpoint_id": "weights/a"},
    ),
    (
        "get_checkpoint_archive_url_from_tinker_path",
        (STATE,),
        "get_checkpoint_archive_url",
        {"run_id": "S1:train:0", "checkpoint_id": "weights/a"},
    ),
    (
        "get_external_weights_urls",
        (EXPORT,),
        "get_external_weights_urls",
        {"run_id": "S1:train:0", "checkpoint_id": "external_weights/a"},
    ),
    ("delete_checkpoint", ("S1:train:0", "weights/a"), "delete_checkpoint", {"tinker_path": STATE}),
    ("delete_checkpoint_from_tinker_path", (STATE,), "delete_checkpoint", {"tinker_path": STATE}),
    ("publish_checkpoint_from_tinker_path", (STATE,), "publish_checkpoint", {"tinker_path": STATE}),
    (
        "unpublish_checkpoint_from_tinker_path",
        (STATE,),
        "unpublish_checkpoint",
        {"tinker_path": STATE},
    ),
    (
        "set_checkpoint_ttl_from_tinker_path",
        (STATE, 3600),
        "set_checkpoint_ttl",
        {"tinker_path": STATE, "ttl_seconds": 3600},
    ),
    ("list_sessions", (), "list_sessions", {"limit": 20, "offset": 0} | OWNED),
    ("get_session", ("S1",), "get_session", {"session_id": "S1"} | OWNED),
    ("search_sessions", (SEARCH,), "search_sessions", {"request": SEARCH}),
    (
        "assign_session_project",
        ("S1", "p"),
        "assign_session_project",
        {"session_id": "S1", "project_id": "p"},
    ),
    ("export_session_trace", ("S1",), "export_session_trace", {"session_id": "S1"}),
    ("get_sampler", ("s",), "get_sampler", {"sampler_id": "s"}),
    ("get_weights_info_by_tinker_path", (STATE,), "weights_info", {"tinker_path": STATE}),
    (
        "copy_weights",
        (STATE, "p"),
        "copy_weights",
        {
            "source_path": STATE,
            "destination_project_id": "p",
            "ttl_seconds": None,
            "weights_access_token": None,
        },
    ),
    (
        "get_audit_log",
        ("teams", date(2026, 1, 2)),
        "get_audit_log",
        {"event_type": "teams", "day": date(2026, 1, 2)},
    ),
    (
        "get_billing_usage",
        ("2026-07-13T00:00:00Z", "2026-07-14T00:00:00Z"),
        "get_billing_usage",
        {"starting_on": "2026-07-13T00:00:00Z", "ending_before": "2026-07-14T00:00:00Z"},
    ),
    (
        "get_current_checkpoint_storage_usage",
        (),
        "get_current_checkpoint_storage_usage",
        {"project_id": None},
    ),
]
CHANGES = ("delete", "publish", "unpublish", "set_", "assign")


@pytest.mark.parametrize("method,arguments,name,expected", CALLS)
async def test_a_call_and_its_async_twin_ask_the_registry(
    method: str, arguments: tuple[Any, ...], name: str, expected: dict[str, Any]
) -> None:
    told = None if name.startswith(CHANGES) else "answer"
    rest = Rest({name: told})
    assert told == getattr(rest.client, method)(*arguments).result(5)
    twin = getattr(rest.client, f"{method}_async", None)
    if twin is not None:
        assert told == await twin(*arguments)
    assert {(name, str(expected))} == {(call, str(given)) for call, given in rest.runtime.calls}


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
        ("publish_checkpoint_from_tinker_path", ("tinker://r/a",)),
        ("set_checkpoint_ttl_from_tinker_path", ("tinker://r/a", 1)),
        ("get_weights_info_by_tinker_path", ("weights/a",)),
        ("get_checkpoint_archive_url_from_tinker_path", ("weights/a",)),
    ],
)
def test_a_malformed_path_is_refused_at_the_call(method: str, arguments: tuple[str, ...]) -> None:
    rest = Rest()
    with pytest.raises(ValueError, match="invalid checkpoint path"):
        getattr(rest.client, method)(*arguments)
    assert [] == rest.runtime.calls


def test_only_exports_have_files_to_download() -> None:
    with pytest.raises(ValueError, match="save_weights_external"):
        Rest().client.get_external_weights_urls(STATE)


def test_a_copy_needs_a_project_and_hides_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = Rest({"copy_weights": EXPORT})
    monkeypatch.delenv("TINKER_PROJECT_ID", raising=False)
    with pytest.raises(ValueError, match="TINKER_PROJECT_ID"):
        rest.client.copy_weights(STATE)
    monkeypatch.setenv("TINKER_PROJECT_ID", "env")
    assert EXPORT == rest.client.copy_weights(STATE, weights_access_token=HUSH).result(5)
    given = rest.runtime.calls[0][1]
    assert ("env", Secret(HUSH)) == (
        given["destination_project_id"],
        given["weights_access_token"],
    )
    assert HUSH not in repr(given)


def test_a_download_says_at_the_call_what_is_wrong_with_its_destination(tmp_path: Path) -> None:
    download = Rest().client.download_checkpoint_archive
    there = tmp_path / "S1:train:0_weights_a.tar"
    there.write_bytes(b"old")
    with pytest.raises(ValueError, match="invalid checkpoint path"):
        download("weights/a", tmp_path)
    with pytest.raises(FileNotFoundError, match="missing: make it"):
        download(STATE, tmp_path / "missing" / "a.tar")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        download(STATE, tmp_path)
    assert b"old" == there.read_bytes()


# --- without a session ----------------------------------------------------------------------------


def over(script: dict[str, list[Any]]) -> tuple[ClientSession, ScriptedTransport]:
    transport = ScriptedTransport(script)

    async def connector(_: Settings) -> Link:
        return Link(transport)

    async def opener(*_: object) -> FakeRuntime:
        pytest.fail("a REST call opened a session")

    return ClientSession(Settings(mode="local"), opener=opener, connector=connector), transport


def test_a_rest_call_opens_no_session() -> None:
    session, transport = over(
        {"/api/v1/get_server_capabilities": [answer({"supported_models": []})]}
    )
    assert [] == RestClient(session).get_server_capabilities().result(5).supported_models
    assert ["/api/v1/get_server_capabilities"] == transport.paths()
    assert "RestClient.get_server_capabilities" == transport.sent[0].request.headers["x-sdk-method"]
    session.close("success")
    assert transport.closed


async def test_an_inherited_call_is_attributed_to_the_client() -> None:
    page = {"training_runs": [], "cursor": {"offset": 0, "limit": 20, "total_count": 0}}
    session, transport = over({"/api/v1/checkpoints": [answer({"checkpoints": []})]})
    await RestClient(session).list_user_checkpoints_async()
    assert page
    method = transport.sent[0].request.headers["x-sdk-method"]
    assert "RestClient.list_user_checkpoints_async" == method


def test_clients_of_the_same_service_and_key_share_their_connections() -> None:
    first = RestClient(base_url="http://a", api_key="tml-1")
    same = AdminClient(base_url="http://a", api_key="tml-1")
    other = RestClient(base_url="http://a", api_key="tml-2")
    assert first._session is same._session
    assert first._session is not other._session
    assert "tml-" not in repr(registry_client._SHARED) + repr(first)


def test_a_holder_brings_its_own_service() -> None:
    session = ClientSession(Settings(base_url="http://a"))
    assert session is RestClient(Holder(session))._session
    with pytest.raises(ConfigurationError, match="holder"):
        AdminClient(Holder(session), base_url="http://b")


def test_a_pickled_client_holds_no_key() -> None:
    client = RestClient(base_url="http://a", api_key="tml-hidden")
    pickled = pickle.dumps(client)
    assert b"hidden" not in pickled
    copy = pickle.loads(pickled)  # noqa: S301 - our own bytes
    assert ("http://a", RestClient) == (copy._session.settings.base_url, type(copy))
    other = pickle.loads(pickle.dumps(AdminClient(base_url="http://a")))  # noqa: S301
    assert AdminClient is type(other)


# --- pages ----------------------------------------------------------------------------------------


def checkpoint(number: int) -> Checkpoint:
    return Checkpoint.model_validate(
        {
            "checkpoint_id": f"weights/{number}",
            "checkpoint_type": "training",
            "time": "2026-01-01T00:00:00Z",
            "tinker_path": f"tinker://r/weights/{number}",
        }
    )


def paged(items: list[Any], page: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    def pages(arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        start = arguments["offset"]
        return page(items[start : start + arguments["limit"]])

    return pages


async def test_iterators_give_every_page() -> None:
    checkpoints = [checkpoint(number) for number in range(7)]
    cursor = Cursor(offset=0, limit=1, total_count=1)
    rest = Rest(
        {
            "list_user_checkpoints": paged(
                checkpoints, lambda page: CheckpointsListResponse(checkpoints=page)
            ),
            "list_sessions": paged(
                ["a", "b", "c"], lambda page: ListSessionsResponse(sessions=page)
            ),
            "list_training_runs": paged(
                [], lambda page: TrainingRunsResponse(training_runs=page, cursor=cursor)
            ),
        }
    )
    client = rest.client
    pages = client.iter_user_checkpoints(page_size=3)
    assert checkpoints == list(pages)
    assert checkpoints == [item async for item in pages]
    assert ["a", "b", "c"] == list(client.iter_sessions(page_size=3))
    assert [] == [run async for run in client.iter_training_runs(project_id="p")]
    sizes = [given["limit"] for name, given in rest.runtime.calls if name == "list_sessions"]
    assert [3, 3] == sizes


def test_an_item_that_moves_to_a_later_page_is_given_once() -> None:
    lists = [["a", "b"], ["b", "c"], ["c"]]
    session, _ = over({"/api/v1/sessions": [answer({"sessions": page}) for page in lists]})
    assert ["a", "b", "c"] == list(RestClient(session).iter_sessions(page_size=2))
    session.close("success")


def test_a_page_has_at_least_one_item() -> None:
    with pytest.raises(ValueError, match="page_size=0"):
        Pages(lambda *_: pytest.fail("asked"), str, 0)
