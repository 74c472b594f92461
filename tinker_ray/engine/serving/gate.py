"""The outermost layer of the engine's app: prefix, key, size, trace context, unexpected errors.

Plain ASGI. Knows nothing of endpoints but which of them ask for no key.

Invariant: every request is answered, and an unexpected error is logged once, without the request.
"""

from __future__ import annotations

import json
import logging
import secrets
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from tinker_ray.engine.serving.body import MAX_BODY_BYTES
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.telemetry import names, span
from tinker_ray.telemetry.trace import SpanKind

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tinker_ray.engine.access.admission import Admission

_logger = logging.getLogger("tinker_ray.engine")
_ROOT = "/api/v1/"
_OPEN_PATHS = ("/api/v1/healthz", "/api/v1/downloads/")
_TOO_LARGE = f"has more than {MAX_BODY_BYTES} bytes"
ERROR_ID = "tinker_ray.error_id"
"""The key in a request's scope of the id that its unexpected error would be logged under."""
CALLER = "tinker_ray.caller"
"""The key of who sent the request."""
PREFIX = "tinker_ray.prefix"
"""The key of what the request's path had before ``/api/v1``."""


class Gate:
    """Lets requests through to an app.

    Args:
        app: The app, which serves ``/api/v1/…``; requests may come with any prefix before that.
        admission: Decides who is let in.
    """

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the app's lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        start = max(path.find(_ROOT), 0)
        if start:
            scope = {**scope, "path": path[start:], "raw_path": path[start:].encode()}
        scope[PREFIX] = path[:start]
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        length = headers.get("content-length", b"")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            await _refuse(send, RequestRejected(_TOO_LARGE, field="body", status_code=413))
            return
        try:
            if not scope["path"].startswith(_OPEN_PATHS):
                scope[CALLER] = self._admission.admit(headers.get("x-api-key"))
        except RequestRejected as error:
            await _refuse(send, error)
            return
        await self._serve(scope, _bounded(receive), send, headers)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[str, bytes]
    ) -> None:
        status_code = 0

        async def send_and_note(message: Message) -> None:
            nonlocal status_code
            if message["type"] == "http.response.start":
                status_code = message["status"]
            await send(message)

        carrier: dict[str, str] = {
            name: headers[name].decode("latin-1")
            for name in ("traceparent", "tracestate")
            if name in headers
        }
        attributes = {names.HTTP_REQUEST_METHOD: scope["method"]}
        with span(
            names.ENGINE_REQUEST, attributes=attributes, carrier=carrier, kind=SpanKind.SERVER
        ) as current:
            error_id = scope[ERROR_ID] = secrets.token_hex(6)
            try:
                await self._app(scope, receive, send_and_note)
            except Exception:  # the border of a request; the app has answered it
                _logger.exception("a request failed (error %s)", error_id)
            current.set_attribute(names.HTTP_ROUTE, _route(scope))
            current.set_attribute(names.HTTP_RESPONSE_STATUS_CODE, status_code)


def _bounded(receive: Receive) -> Receive:
    """Refuse a body as soon as more of it has come than the engine reads."""
    num_bytes = 0

    async def receive_and_count() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > MAX_BODY_BYTES:
            raise HTTPException(413, _TOO_LARGE)
        return message

    return receive_and_count


def _route(scope: Scope) -> str:
    """Name the endpoint that a request came to, with its parameters' names in place of values."""
    if "endpoint" not in scope:
        return ""
    route: str = scope["path"]
    for name, value in scope.get("path_params", {}).items():
        route = route.replace(f"/{value}", f"/{{{name}}}")
    return route


async def _refuse(send: Send, error: RequestRejected) -> None:
    content = json.dumps({"detail": error.message, "field": error.field}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in error.headers.items()),
    ]
    await send({"type": "http.response.start", "status": error.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": content})
