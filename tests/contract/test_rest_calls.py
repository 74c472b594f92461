"""Our REST calls make the requests that upstream's make, of both generations.

``golden/upstream_rest.json`` is written by ``record_rest.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.record_rest import ANSWERS, KEPT
from tinker_ray.config import Secret
from tinker_ray.core.flags import JSON_ONLY, ServerFlags
from tinker_ray.core.link import Link
from tinker_ray.core.registry import RegistryCore
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.http import HttpTransport
from tinker_ray.types import ParsedCheckpointTinkerPath, SessionSearchRequest

RECORDED: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "golden" / "upstream_rest.json").read_text()
)
FLAGS = {"0.38.0": ServerFlags(), "0.6.3": JSON_ONLY}

Arguments = dict[str, Any]


def page(limit: int = 20, offset: int = 0, **options: Any) -> Arguments:  # noqa: ANN401
    return {"limit": limit, "offset": offset, **options}


def external(tinker_path: str) -> Arguments:
    parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
    return {"run_id": parsed.training_run_id, "checkpoint_id": parsed.checkpoint_id}


def copied(path: str, project: str, **options: Any) -> Arguments:  # noqa: ANN401
    token = options.pop("weights_access_token", None)
    return {
        "source_path": path,
        "destination_project_id": project,
        "weights_access_token": None if token is None else Secret(token),
        **options,
    }


def named(*names: str) -> Callable[..., Arguments]:
    def name_them(*arguments: Any, **options: Any) -> Arguments:  # noqa: ANN401
        return {**dict(zip(names, arguments, strict=False)), **options}

    return name_them


OURS: dict[str, tuple[str, Callable[..., Arguments]]] = {
    "get_server_capabilities": ("get_server_capabilities", named()),
    "list_training_runs": ("list_training_runs", page),
    "get_training_run": ("get_training_run", named("run_id")),
    "list_checkpoints": ("list_checkpoints", named("run_id")),
    "list_user_checkpoints": ("list_user_checkpoints", page),
    "get_checkpoint_archive_url": (
        "get_checkpoint_archive_url",
        named("run_id", "checkpoint_id"),
    ),
    "get_external_weights_urls": ("get_external_weights_urls", external),
    "delete_checkpoint": (
        "delete_checkpoint",
        lambda run, checkpoint: {"tinker_path": f"tinker://{run}/{checkpoint}"},
    ),
    "publish_checkpoint_from_tinker_path": ("publish_checkpoint", named("tinker_path")),
    "unpublish_checkpoint_from_tinker_path": ("unpublish_checkpoint", named("tinker_path")),
    "set_checkpoint_ttl_from_tinker_path": (
        "set_checkpoint_ttl",
        named("tinker_path", "ttl_seconds"),
    ),
    "get_weights_info_by_tinker_path": ("weights_info", named("tinker_path")),
    "list_sessions": ("list_sessions", page),
    "get_session": ("get_session", named("session_id")),
    "get_sampler": ("get_sampler", named("sampler_id")),
    "assign_session_project": ("assign_session_project", named("session_id", "project_id")),
    "export_session_trace": ("export_session_trace", named("session_id")),
    "copy_weights": ("copy_weights", copied),
    "search_sessions": (
        "search_sessions",
        lambda fields: {"request": SessionSearchRequest.model_validate(fields)},
    ),
    "get_audit_log": (
        "get_audit_log",
        lambda event_type="all", day=None: {
            "event_type": event_type,
            "day": None if day is None else date.fromisoformat(day),
        },
    ),
    "get_billing_usage": ("get_billing_usage", named("starting_on", "ending_before")),
    "get_current_checkpoint_storage_usage": (
        "get_current_checkpoint_storage_usage",
        named("project_id"),
    ),
}


async def requested(name: str, arguments: Arguments, flags: ServerFlags) -> httpx.Request:
    """Make one of our calls and return its request."""
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        path = request.url.path.removeprefix("/api/v1/")
        if path.endswith("/archive"):
            return httpx.Response(302, headers={"Location": "https://storage/archive"})
        return httpx.Response(200, json=ANSWERS.get(path, {}))

    transport = HttpTransport(
        "http://service",
        Secret("tml-golden"),
        make_client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer)),
    )
    link = Link(transport, VirtualClock(), flags)
    try:
        await RegistryCore(link).call(name, arguments)
    finally:
        await link.aclose()
    (request,) = seen
    return request


@pytest.mark.parametrize(
    "version,recorded",
    [
        pytest.param(version, item, id=f"{version}-{number}-{item['call'][0]}")
        for version, items in RECORDED.items()
        for number, item in enumerate(items)
    ],
)
async def test_our_calls_make_upstreams_requests(version: str, recorded: dict[str, Any]) -> None:
    method, arguments, options = recorded["call"]
    name, translate = OURS[method]
    request = await requested(name, translate(*arguments, **options), FLAGS[version])
    theirs = recorded["request"]
    kept = {key: request.headers[key] for key in KEPT if key in request.headers}
    if method == "get_checkpoint_archive_url":  # upstream accepts JSON and gzip in two headers
        assert ("application/json", "application/gzip") == (
            theirs["headers"].pop("accept"),
            kept.pop("accept"),
        )
    assert (theirs["method"], theirs["path"], theirs["headers"]) == (
        request.method,
        request.url.raw_path.decode(),
        kept,
    )
    ours, body = request.content.decode(), theirs["text"]
    assert json.loads(body or "null") == json.loads(ours or "null")


def test_every_call_of_upstream_was_recorded() -> None:
    made = {item["call"][0] for items in RECORDED.values() for item in items}
    assert set(OURS) == made
