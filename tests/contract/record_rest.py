"""Record the requests of the upstream SDK's REST calls, of one generation at a time.

Run in environments that have upstream and nothing of ours::

    /tmp/upstream/bin/python tests/contract/record_rest.py

It drives ``RestClient`` (and ``AdminClient``, where there is one) against a server on the loopback
interface that answers with fixed values, and writes the requests under the SDK's version into
``golden/upstream_rest.json``: method, path with query, JSON body, and the headers in ``KEPT``.
"""

from __future__ import annotations

import datetime as dt
import importlib
import importlib.metadata
import json
import os
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden" / "upstream_rest.json"
KEPT = ("accept", "content-type", "x-tinker-weights-access-token")
RUN, STATE = "S1:train:0", "tinker://S1:train:0/weights/a"
EXTERNAL = "tinker://S1:train:0/external_weights/x"
CHECKPOINT = f"training_runs/{RUN}/checkpoints/weights/a"
CURSOR = {"offset": 0, "limit": 20, "total_count": 0}
A_RUN = {
    "training_run_id": RUN,
    "base_model": "base",
    "model_owner": "me",
    "is_lora": True,
    "last_request_time": "2026-07-01T00:00:00Z",
}
ANSWERS: dict[str, Any] = {
    "create_session": {"session_id": "S1"},
    "client/config": {},
    "client/dynamic_config": {},
    "session_heartbeat": {},
    "telemetry": {"status": "accepted"},
    "get_server_capabilities": {"supported_models": []},
    "training_runs": {"training_runs": [], "cursor": CURSOR},
    f"training_runs/{RUN}": A_RUN,
    f"training_runs/{RUN}/checkpoints": {"checkpoints": []},
    f"training_runs/{RUN}/checkpoints/external_weights/x/external_weights_urls": {
        "urls": {},
        "expires": "2026-07-01T00:00:00Z",
    },
    "checkpoints": {"checkpoints": [], "cursor": CURSOR},
    "sessions": {"sessions": []},
    "sessions/S1": {"training_run_ids": [], "sampler_ids": []},
    "sessions/S1/trace_export": {"status": "ready", "url": "https://storage/t"},
    "sessions/search": {"sessions": []},
    "samplers/S1:sample:0": {"sampler_id": "S1:sample:0", "base_model": "base"},
    "weights_info": {"base_model": "base", "is_lora": True},
    "copy_weights": {"tinker_path": STATE},
    "audit": {"entries": []},
    "billing/usage/events": {"data": []},
    "billing/usage/checkpoints/current": {"data": []},
}
UNRECORDED = {"create_session", "client/config", "client/dynamic_config", "telemetry"}

CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("get_server_capabilities", (), {}),
    ("list_training_runs", (), {}),
    ("list_training_runs", (5, 2), {"access_scope": "accessible", "project_id": "p"}),
    ("get_training_run", (RUN,), {}),
    ("get_training_run", (RUN,), {"access_scope": "accessible"}),
    ("list_checkpoints", (RUN,), {}),
    ("list_user_checkpoints", (7, 3), {}),
    ("get_checkpoint_archive_url", (RUN, "weights/a"), {}),
    ("get_external_weights_urls", (EXTERNAL,), {}),
    ("delete_checkpoint", (RUN, "weights/a"), {}),
    ("publish_checkpoint_from_tinker_path", (STATE,), {}),
    ("unpublish_checkpoint_from_tinker_path", (STATE,), {}),
    ("set_checkpoint_ttl_from_tinker_path", (STATE, 3600), {}),
    ("set_checkpoint_ttl_from_tinker_path", (STATE, None), {}),
    ("get_weights_info_by_tinker_path", (STATE,), {}),
    ("list_sessions", (4, 1), {}),
    ("get_session", ("S1",), {}),
    ("get_sampler", ("S1:sample:0",), {}),
    ("assign_session_project", ("S1", "p"), {}),
    ("export_session_trace", ("S1",), {}),
    ("copy_weights", (STATE, "p"), {"ttl_seconds": 3600, "weights_access_token": "token"}),
    ("copy_weights", (STATE, "p"), {}),
    ("search_sessions", ({"display_name": "nightly", "statuses": [{"type": "active"}]},), {}),
    ("get_audit_log", (), {}),
    ("get_audit_log", ("projects", dt.date(2026, 7, 1)), {}),
    ("get_billing_usage", ("2026-07-01T00:00:00Z", "2026-07-02T00:00:00Z"), {}),
    ("get_current_checkpoint_storage_usage", (), {}),
    ("get_current_checkpoint_storage_usage", ("p",), {}),
]


class Service(ThreadingHTTPServer):
    """Keeps the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    """Answers at once."""

    protocol_version = "HTTP/1.1"
    server: Service

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        name = self.path.partition("?")[0].removeprefix("/api/v1/")
        if name not in UNRECORDED | {"session_heartbeat"}:
            headers = {name: self.headers[name] for name in KEPT if name in self.headers}
            request = {"method": self.command, "path": self.path, "text": text, "headers": headers}
            self.server.requests.append(request)
        content = json.dumps(ANSWERS.get(name, {})).encode()
        self.send_response(302 if name.endswith("/archive") else 200)
        if name.endswith("/archive"):
            self.send_header("Location", "https://storage/archive")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def clients_of(tinker: Any) -> list[Any]:  # noqa: ANN401
    """Make the clients that have REST calls, those that replace others first."""
    if not hasattr(tinker, "AdminClient"):
        return [tinker.ServiceClient().create_rest_client()]
    return [tinker.AdminClient(), tinker.RestClient()]


def record() -> None:
    """Make the calls and write what was requested."""
    service = Service()
    threading.Thread(target=service.serve_forever, daemon=True).start()
    os.environ |= {
        "TINKER_BASE_URL": f"http://127.0.0.1:{service.server_port}",
        "TINKER_API_KEY": "tml-golden",
        "TINKER_TELEMETRY": "0",
    }
    tinker = importlib.import_module("tinker")
    clients = clients_of(tinker)
    made = []
    for name, arguments, options in CALLS:
        client = next((item for item in clients if hasattr(item, name)), None)
        if client is None:
            continue
        given = arguments
        if name == "search_sessions":
            given = (tinker.types.SessionSearchRequest.model_validate(arguments[0]),)
        try:
            future = getattr(client, name)(*given, **options)
        except TypeError:  # an option of the other generation
            continue
        future.result(30)
        call = [
            name,
            [str(item) if isinstance(item, dt.date) else item for item in arguments],
        ]
        made.append({"call": [*call, options], "request": service.requests.pop()})
        assert not service.requests, name
    stored = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    stored[importlib.metadata.version("tinker")] = made
    GOLDEN.write_text(json.dumps(dict(sorted(stored.items())), indent=1) + "\n")
    service.shutdown()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    record()
