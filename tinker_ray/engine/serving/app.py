"""The engine as an ASGI app: its endpoints, and what a refusal looks like.

Invariant: a training request that is refused gives its place in the model's order up, so that those
after it do not wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tinker_ray.engine.serving.answer import host_of, json_answer
from tinker_ray.engine.serving.body import plain_body, turn_of
from tinker_ray.engine.serving.gate import ERROR_ID, Gate
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.engine.serving.routes import (
    future,
    registry,
    sampling,
    service,
    session,
    training,
    weights,
)
from tinker_ray.errors import WireFormatError
from tinker_ray.version import __version__

if TYPE_CHECKING:
    from tinker_ray.config import Secret
    from tinker_ray.engine.host import Host

_UNPROCESSABLE = 422
_ROUTERS = (future, registry, sampling, service, session, training, weights)
_IN_ORDER = {
    "forward",
    "forward_backward",
    "optim_step",
    "save_weights",
    "save_weights_for_sampler",
    "load_weights",
}


def create_app(host: Host, *, api_key: Secret | None = None) -> Gate:
    """Build the app of an engine.

    Args:
        host: The engine; it stays its maker's to close.
        api_key: What clients have to send as ``X-API-Key``; None for nothing.
    """
    app = FastAPI(title="tinker-ray engine", version=__version__)
    app.state.host = host
    for module in _ROUTERS:
        app.include_router(module.router, prefix="/api/v1")
    app.add_exception_handler(RequestRejected, _rejected)
    app.add_exception_handler(WireFormatError, _malformed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(Exception, _unexpected)
    return Gate(app, api_key=api_key)


async def _rejected(request: Request, error: Exception) -> Response:
    rejected = cast("RequestRejected", error)
    return await _refuse(request, rejected.status_code, rejected.message, rejected.field)


async def _malformed(request: Request, error: Exception) -> Response:
    malformed = cast("WireFormatError", error)
    return await _refuse(request, _UNPROCESSABLE, str(malformed), malformed.field)


async def _invalid(request: Request, error: Exception) -> Response:
    first = cast("RequestValidationError", error).errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return await _refuse(request, _UNPROCESSABLE, f"{field}: {first['msg']}", field)


async def _unknown(request: Request, error: Exception) -> Response:
    """Answer for paths and methods that do not exist."""
    status = cast("HTTPException", error)
    return json_answer(
        {"detail": f"{request.method} {request.url.path}: {status.detail}"}, status.status_code
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    """Answer for an error of the engine's own; the gate logs it."""
    error_id = request.scope[ERROR_ID]
    detail = f"internal error {error_id} ({type(error).__name__}): the engine's log has more"
    return json_answer({"detail": detail, "error_id": error_id}, 500)


async def _refuse(request: Request, status_code: int, detail: str, field: str) -> Response:
    if request.url.path.rpartition("/")[2] in _IN_ORDER:
        await _give_place_up(request)
    value: dict[str, Any] = {"detail": detail}
    if field:
        value["field"] = field
    return json_answer(value, status_code)


async def _give_place_up(request: Request) -> None:
    try:
        content = await plain_body(request)
    except RequestRejected:
        return
    turn = turn_of(content, request.headers.get("content-type", ""))
    if turn is not None:
        host_of(request).runs.skip(*turn)
