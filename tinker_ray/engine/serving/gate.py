"""The outermost layer of the engine's app: prefix, key, trace context, unexpected errors.

Plain ASGI. Knows nothing of endpoints.

Invariant: every request is answered, and an unexpected error is logged once, without the request.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
from typing import TYPE_CHECKING

from tinker_ray.engine.serving.body import MAX_BODY_BYTES
from tinker_ray.telemetry import names, span
from tinker_ray.telemetry.trace import SpanKind

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tinker_ray.config import Secret

_logger = logging.getLogger("tinker_ray.engine")
_ROOT = "/api/v1/"
_OPEN_PATH = "/api/v1/healthz"
ERROR_ID = "tinker_ray.error_id"
"""The key in a request's scope of the id that its unexpected error would be logged under."""


class Gate:
    """Lets requests through to an app.

    Args:
        app: The app, which serves ``/api/v1/…``; requests may come with any prefix before that.
        api_key: What ``X-API-Key`` has to be; None lets everybody in.
    """

    def __init__(self, app: ASGIApp, *, api_key: Secret | None) -> None:
        self._app = app
        self._api_key = None if api_key is None else api_key.reveal().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the app's lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if (start := path.find(_ROOT)) > 0:
            path = path[start:]
            scope = {**scope, "path": path, "raw_path": path.encode()}
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        if int(headers.get("content-length", b"0")) > MAX_BODY_BYTES:
            await _answer(send, 413, {"detail": f"the body has over {MAX_BODY_BYTES} bytes"})
            return
        if not self._is_admitted(path, headers):
            await _answer(send, 401, {"detail": "X-API-Key is missing or wrong"})
            return
        await self._serve(scope, receive, send, headers)

    def _is_admitted(self, path: str, headers: dict[str, bytes]) -> bool:
        if self._api_key is None or path == _OPEN_PATH:
            return True
        return hmac.compare_digest(self._api_key, headers.get("x-api-key", b""))

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


def _route(scope: Scope) -> str:
    """Name the endpoint that a request came to, with its parameters' names in place of values."""
    if "endpoint" not in scope:
        return ""
    route: str = scope["path"]
    for name, value in scope.get("path_params", {}).items():
        route = route.replace(f"/{value}", f"/{{{name}}}")
    return route


async def _answer(send: Send, status_code: int, value: dict[str, str]) -> None:
    content = json.dumps(value).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    await send({"type": "http.response.start", "status": status_code, "headers": headers})
    await send({"type": "http.response.body", "body": content})
