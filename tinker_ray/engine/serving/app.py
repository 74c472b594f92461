"""The engine as an ASGI app: its endpoints, and what a refusal looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tinker_ray.engine.serving.answer import json_answer
from tinker_ray.engine.serving.gate import ERROR_ID, Gate
from tinker_ray.engine.serving.generation import has_endpoint
from tinker_ray.engine.serving.openapi import describe
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.engine.serving.route import PREFIX
from tinker_ray.engine.serving.routes import (
    account,
    checkpoint,
    checkpoint_copy,
    custom_loss,
    download,
    future,
    model,
    report,
    run,
    sampling,
    service,
    session,
    session_search,
    training,
    weights,
)
from tinker_ray.errors import WireFormatError
from tinker_ray.version import __version__

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from tinker_ray.engine.host import Host

_UNPROCESSABLE = 422
_ROUTERS = (
    account,
    checkpoint,
    checkpoint_copy,
    custom_loss,
    download,
    future,
    model,
    report,
    run,
    sampling,
    service,
    session,
    session_search,
    training,
    weights,
)


def create_app(host: Host) -> Gate:
    """Build the app of an engine.

    Args:
        host: The engine; it stays its maker's to close.
    """
    app = FastAPI(
        title="tinker-ray engine",
        version=__version__,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.host = host
    for module in _ROUTERS:  # routes are taken as they are: to include routers builds them anew
        app.router.routes += _served(module.router, host)
    describe(app)
    app.add_exception_handler(RequestRejected, _rejected)
    app.add_exception_handler(WireFormatError, _malformed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(Exception, _unexpected)
    return Gate(app, host.admission)


def _served(router: APIRouter, host: Host) -> list[BaseRoute]:
    """Return the routes that a service of the engine's generation has."""
    wire = host.settings.wire
    return [route for route in router.routes if has_endpoint(wire, getattr(route, "name", ""))]


async def _rejected(request: Request, error: Exception) -> Response:  # noqa: ARG001
    rejected = cast("RequestRejected", error)
    return _refusal(rejected.status_code, rejected.message, rejected.field, rejected.headers)


async def _malformed(request: Request, error: Exception) -> Response:  # noqa: ARG001
    malformed = cast("WireFormatError", error)
    return _refusal(_UNPROCESSABLE, str(malformed), malformed.field)


async def _invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001
    first = cast("RequestValidationError", error).errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    if first["type"] == "json_invalid":
        field = "body"
    reason = first.get("ctx", {}).get("error", "") if field == "body" else ""
    problem = first["msg"].removeprefix("Value error, ")
    message = f"{problem}: {reason}" if reason else problem
    return _refusal(_UNPROCESSABLE, f"{field}: {message}", field)


async def _unknown(request: Request, error: Exception) -> Response:
    """Answer for paths and methods that do not exist, and for bodies that are too large."""
    status = cast("HTTPException", error)
    detail = f"{request.method} {request.url.path}: {status.detail}"
    return json_answer({"detail": detail}, status.status_code, status.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    """Answer for an error of the engine's own; the gate logs it."""
    error_id = request.scope[ERROR_ID]
    detail = f"internal error {error_id} ({type(error).__name__}): the engine's log has more"
    return json_answer({"detail": detail, "error_id": error_id}, 500)


def _refusal(
    status_code: int, detail: str, field: str, headers: dict[str, str] | None = None
) -> Response:
    value: dict[str, Any] = {"detail": detail}
    if field:
        value["field"] = field
    return json_answer(value, status_code, headers)
