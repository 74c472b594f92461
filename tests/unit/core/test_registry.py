from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.credentials import FixedIdentity, jwt_of
from tinker_ray import errors
from tinker_ray.config import Secret
from tinker_ray.core.flags import JSON_ONLY, ServerFlags
from tinker_ray.core.link import Link
from tinker_ray.core.registry import RegistryCore
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Response
from tinker_ray.transport.scripted import Answer, ScriptedTransport, answer
from tinker_ray.types import SessionSearchRequest

V1 = "/api/v1/"
CURSOR = {"offset": 0, "limit": 20, "total_count": 0}
RUN = {
    "training_run_id": "r",
    "base_model": "b",
    "model_owner": "o",
    "is_lora": True,
    "last_request_time": "2025-12-04T10:00:00Z",
}
PATH = "tinker://S1:train:0/weights/a"
CHECKPOINT = "training_runs/S1:train:0/checkpoints/weights/a"
ARCHIVE = f"{CHECKPOINT}/archive"
OWNED = {"access_scope": "owned"}
HOUR = datetime(2026, 7, 1, tzinfo=UTC)


def registry_over(
    path: str, *answers: Answer, flags: ServerFlags | None = None
) -> tuple[RegistryCore, ScriptedTransport]:
    transport = ScriptedTransport({V1 + path: list(answers)})
    return RegistryCore(Link(transport, VirtualClock(), flags or ServerFlags())), transport


READS: list[tuple[str, dict[str, Any], str, dict[str, Any], dict[str, Any]]] = [
    ("get_server_capabilities", {}, "get_server_capabilities", {}, {"supported_models": []}),
    (
        "list_training_runs",
        {"limit": 5, "offset": 2},
        "training_runs",
        {"limit": 5, "offset": 2, **OWNED},
        {"training_runs": [], "cursor": CURSOR},
    ),
    (
        "list_training_runs",
        {"limit": 5, "offset": 2, "access_scope": "accessible", "project_id": "p"},
        "training_runs",
        {"limit": 5, "offset": 2, "access_scope": "accessible", "project_id": "p"},
        {"training_runs": [], "cursor": CURSOR},
    ),
    ("get_training_run", {"run_id": "S1:train:0"}, "training_runs/S1:train:0", OWNED, RUN),
    (
        "get_training_run",
        {"run_id": "r", "access_scope": "accessible"},
        "training_runs/r",
        {"access_scope": "accessible"},
        RUN,
    ),
    (
        "list_checkpoints",
        {"run_id": "r"},
        "training_runs/r/checkpoints",
        {},
        {"checkpoints": []},
    ),
    (
        "list_user_checkpoints",
        {"limit": 5, "offset": 0},
        "checkpoints",
        {"limit": 5, "offset": 0},
        {"checkpoints": [], "cursor": CURSOR},
    ),
    (
        "get_external_weights_urls",
        {"run_id": "r", "checkpoint_id": "external_weights/x"},
        "training_runs/r/checkpoints/external_weights/x/external_weights_urls",
        {},
        {"urls": {"a.safetensors": "https://storage/a"}, "expires": "2026-07-01T00:00:00Z"},
    ),
    (
        "list_sessions",
        {"limit": 1, "offset": 0},
        "sessions",
        {"limit": 1, "offset": 0, **OWNED},
        {"sessions": []},
    ),
    (
        "get_session",
        {"session_id": "S1", "access_scope": "accessible"},
        "sessions/S1",
        {"access_scope": "accessible"},
        {"training_run_ids": [], "sampler_ids": []},
    ),
    (
        "get_sampler",
        {"sampler_id": "S1:sample:0"},
        "samplers/S1:sample:0",
        {},
        {"sampler_id": "s", "base_model": "b"},
    ),
    ("get_audit_log", {}, "audit", {"event_type": "all"}, {"entries": []}),
    (
        "get_audit_log",
        {"event_type": "projects", "day": date(2026, 7, 1)},
        "audit",
        {"event_type": "projects", "day": "2026-07-01"},
        {"entries": []},
    ),
    (
        "get_billing_usage",
        {"starting_on": HOUR, "ending_before": "2026-07-02T00:00:00Z"},
        "billing/usage/events",
        {"starting_on": "2026-07-01T00:00:00Z", "ending_before": "2026-07-02T00:00:00Z"},
        {"data": []},
    ),
    (
        "get_current_checkpoint_storage_usage",
        {},
        "billing/usage/checkpoints/current",
        {},
        {"data": []},
    ),
    (
        "get_current_checkpoint_storage_usage",
        {"project_id": "p"},
        "billing/usage/checkpoints/current",
        {"project_id": "p"},
        {"data": []},
    ),
]


@pytest.mark.parametrize("name,arguments,path,query,body", READS)
async def test_a_read_asks_what_the_contract_says(
    name: str,
    arguments: dict[str, Any],
    path: str,
    query: dict[str, Any],
    body: dict[str, Any],
) -> None:
    registry, transport = registry_over(path, answer(body))
    assert await registry.call(name, arguments) is not None
    request = transport.sent[0].request
    assert ("GET", V1 + path, query) == (request.endpoint.method, request.path, request.query)


CHANGES: list[tuple[str, dict[str, Any], str, str, dict[str, Any] | None]] = [
    ("delete_checkpoint", {"tinker_path": PATH}, "DELETE", CHECKPOINT, None),
    ("publish_checkpoint", {"tinker_path": PATH}, "POST", f"{CHECKPOINT}/publish", None),
    ("unpublish_checkpoint", {"tinker_path": PATH}, "DELETE", f"{CHECKPOINT}/publish", None),
    (
        "set_checkpoint_ttl",
        {"tinker_path": PATH, "ttl_seconds": 3600},
        "PUT",
        f"{CHECKPOINT}/ttl",
        {"ttl_seconds": 3600},
    ),
    (
        "set_checkpoint_ttl",
        {"tinker_path": PATH, "ttl_seconds": None},
        "PUT",
        f"{CHECKPOINT}/ttl",
        {"ttl_seconds": None},
    ),
    (
        "assign_session_project",
        {"session_id": "S1", "project_id": "p"},
        "PUT",
        "sessions/S1/project",
        {"project_id": "p"},
    ),
    (
        "finish_session",
        {"session_id": "S1"},
        "POST",
        "sessions/S1/finish",
        {"reason": {"type": "success"}, "detail": None},
    ),
]


@pytest.mark.parametrize("name,arguments,method,path,body", CHANGES)
async def test_a_change_says_what_the_contract_says(
    name: str,
    arguments: dict[str, Any],
    method: str,
    path: str,
    body: dict[str, Any] | None,
) -> None:
    registry, transport = registry_over(path, Response(204))
    assert await registry.call(name, arguments) is None
    sent = transport.sent[0]
    assert (method, V1 + path) == (sent.request.endpoint.method, sent.request.path)
    assert (body or {}) == sent.json()


async def test_questions_that_are_posted_say_what_the_contract_says() -> None:
    registry, transport = registry_over("get_info", answer({"model_id": "m", "model_data": {}}))
    await registry.call("get_info", {"model_id": "m"})
    assert {"model_id": "m", "type": "get_info"} == transport.sent[0].json()
    registry, transport = registry_over(
        "weights_info", answer({"base_model": "b", "is_lora": True})
    )
    await registry.call("weights_info", {"tinker_path": PATH})
    assert {"tinker_path": PATH} == transport.sent[0].json()
    registry, transport = registry_over("sessions/search", answer({"sessions": []}))
    request = SessionSearchRequest(display_name="nightly")
    await registry.call("search_sessions", {"request": request})
    assert {
        "user_metadata": {},
        "display_name": "nightly",
        "owner": {"type": "own"},
        "limit": 50,
    } == transport.sent[0].json()


@pytest.mark.parametrize(
    "name,arguments,path,body",
    [
        (
            "list_training_runs",
            {"limit": 1, "offset": 0},
            "training_runs",
            {"training_runs": [], "cursor": CURSOR},
        ),
        ("get_training_run", {"run_id": "r"}, "training_runs/r", RUN),
        ("list_sessions", {"limit": 1, "offset": 0}, "sessions", {"sessions": []}),
        (
            "get_session",
            {"session_id": "S1"},
            "sessions/S1",
            {"training_run_ids": [], "sampler_ids": []},
        ),
    ],
)
async def test_an_old_service_is_asked_for_no_scope_unless_one_is_given(
    name: str, arguments: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    registry, transport = registry_over(path, answer(body), flags=JSON_ONLY)
    await registry.call(name, arguments)
    await registry.call(name, {**arguments, "access_scope": "accessible"})
    assert [None, "accessible"] == [
        sent.request.query.get("access_scope") for sent in transport.sent
    ]


@pytest.mark.parametrize(
    "name", ["delete_checkpoint", "publish_checkpoint", "unpublish_checkpoint"]
)
async def test_a_change_of_a_checkpoint_needs_its_path(name: str) -> None:
    registry, transport = registry_over("x", answer())
    with pytest.raises(ValueError, match="nonsense"):
        await registry.call(name, {"tinker_path": "nonsense"})
    assert [] == transport.sent


# --- archives ---------------------------------------------------------------------------------


async def test_an_archive_is_where_the_service_redirects_to_and_for_as_long_as_it_says() -> None:
    redirect = answer(
        status=302, location="https://storage/x?sig=1", expires="Wed, 01 Jul 2026 00:00:00 GMT"
    )
    registry, transport = registry_over(ARCHIVE, redirect)
    found = await registry.get_checkpoint_archive_url("S1:train:0", "weights/a")
    assert ("https://storage/x?sig=1", HOUR) == (found.url, found.expires)
    assert "application/gzip" == transport.sent[0].request.headers["Accept"]


@pytest.mark.parametrize("expires", [{}, {"expires": "soon"}])
async def test_an_archive_is_there_for_a_quarter_of_an_hour_if_the_service_does_not_say(
    expires: dict[str, str],
) -> None:
    redirect = answer(status=302, location="https://storage/x", **expires)
    registry, _ = registry_over(ARCHIVE, redirect)
    found = await registry.get_checkpoint_archive_url("S1:train:0", "weights/a")
    left = found.expires - datetime.now(UTC)
    assert timedelta(minutes=14) < left <= timedelta(minutes=15)


@pytest.mark.parametrize("status", [200, 302])
async def test_an_answer_that_names_no_address_is_refused(status: int) -> None:
    registry, _ = registry_over(ARCHIVE, answer(status=status))
    with pytest.raises(errors.APIResponseValidationError, match="Location"):
        await registry.get_checkpoint_archive_url("S1:train:0", "weights/a")


async def test_an_archive_that_does_not_exist_is_an_error() -> None:
    registry, _ = registry_over(ARCHIVE, answer(status=404))
    with pytest.raises(errors.NotFoundError):
        await registry.get_checkpoint_archive_url("S1:train:0", "weights/a")


# --- copies -----------------------------------------------------------------------------------


async def test_a_copy_is_made_once_however_often_it_is_asked_for() -> None:
    token = Secret("very-secret")
    answers = [answer(status=503)] * 12 + [answer({"tinker_path": "tinker://c/weights/a"})]
    registry, transport = registry_over("copy_weights", *answers)
    copied = await registry.copy_weights(PATH, "p", 3600, weights_access_token=token)
    assert ("tinker://c/weights/a", 13) == (copied, len(transport.sent))
    headers = [{**sent.headers, **sent.request.headers} for sent in transport.sent]
    assert 1 == len({item["X-Idempotency-Key"] for item in headers})
    assert {"very-secret"} == {item["X-Tinker-Weights-Access-Token"] for item in headers}
    assert {
        "source_path": PATH,
        "destination_project_id": "p",
        "ttl_seconds": 3600,
    } == transport.sent[0].json()


# --- traces -----------------------------------------------------------------------------------

TRACE = "sessions/S1/trace_export"


async def test_a_trace_is_waited_for() -> None:
    pending, ready = {"status": "pending"}, {"status": "ready", "url": "https://storage/t"}
    registry, transport = registry_over(TRACE, answer(pending), answer(pending), answer(ready))
    assert "https://storage/t" == await registry.export_session_trace("S1")
    clock = registry._link.clock
    assert isinstance(clock, VirtualClock)
    assert ([5.0, 5.0], 3) == (clock.slept, len(transport.sent))


async def test_a_trace_that_cannot_be_made_is_an_error() -> None:
    registry, _ = registry_over(TRACE, answer({"status": "failed", "error": "too long"}))
    with pytest.raises(RuntimeError, match="too long"):
        await registry.export_session_trace("S1")


async def test_a_trace_without_an_address_is_refused() -> None:
    registry, _ = registry_over(TRACE, answer({"status": "ready"}))
    with pytest.raises(errors.APIResponseValidationError, match="no address"):
        await registry.export_session_trace("S1")


# --- who is it --------------------------------------------------------------------------------


def registry_of(identity: Secret | None) -> RegistryCore:
    link = Link(ScriptedTransport({}), VirtualClock(), credentials=FixedIdentity(identity))
    return RegistryCore(link)


async def test_the_token_says_who_it_is() -> None:
    token = jwt_of(sub="tml:user:1", org_id="o1", email="a@b.c")
    who = await registry_of(token).whoami()
    assert ("tml:user:1", "tml:organization:o1", "a@b.c") == (who.user_urn, who.org_urn, who.email)
    assert (await registry_of(jwt_of(sub="u", org_id="o", email="")).whoami()).email is None


@pytest.mark.parametrize("link", [Link(ScriptedTransport({})), registry_of(None)._link])
async def test_a_plain_key_does_not_say_who_it_is(link: Link) -> None:
    with pytest.raises(RuntimeError, match="plain API key"):
        await RegistryCore(link).whoami()


async def test_a_token_that_does_not_say_whose_it_is_is_refused_without_showing_it() -> None:
    token = jwt_of(sub="tml:user:1")
    with pytest.raises(errors.APIResponseValidationError, match="org_id") as caught:
        await registry_of(token).whoami()
    assert token.reveal() not in f"{caught.value!r}{vars(caught.value)}"
