"""How requests become values: strict JSON, and what happens to a training request that is refused.

Invariant: a training request that is refused gives its place in the model's order up, so that those
after it do not wait.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from tinker_ray.engine.serving.answer import caller_of, host_of
from tinker_ray.engine.serving.body import plain_body, turn_of
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.errors import WireFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

PREFIX = "/api/v1"
"""Before the paths of all endpoints."""


class StrictRequest(Request):
    """A request whose JSON is that of RFC 8259: finite numbers, and text that is Unicode."""

    async def json(self) -> Any:  # noqa: ANN401
        """Parse the body.

        Raises:
            json.JSONDecodeError: It is something else.
        """
        return parse_json(await self.body())


def parse_json(content: bytes) -> Any:  # noqa: ANN401
    """Parse bytes as strict JSON.

    Raises:
        json.JSONDecodeError: They are something else.
    """
    try:
        text = content.decode()
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        if "\\ud" in text.lower():  # maybe half a surrogate pair, which no UTF-8 text can hold
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise json.JSONDecodeError(f"not JSON: {error}", "", 0) from error
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise ValueError(f"{text} is too large a number")
    return value


class JsonRoute(APIRoute):
    """An endpoint that reads strict JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the endpoint."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await self.run(handler, StrictRequest(request.scope, request.receive))

        return handle

    async def run(
        self, handler: Callable[[Request], Coroutine[Any, Any, Response]], request: StrictRequest
    ) -> Response:
        """Answer one request."""
        return await handler(request)


class TrainingRoute(JsonRoute):
    """An endpoint whose requests have a place in the order of a model's operations."""

    async def run(
        self, handler: Callable[[Request], Coroutine[Any, Any, Response]], request: StrictRequest
    ) -> Response:
        """Answer one request; if it is refused, what comes after it does not wait for it."""
        try:
            return await handler(request)
        except (RequestRejected, WireFormatError, RequestValidationError, HTTPException):
            await _give_place_up(request)
            raise


async def _give_place_up(request: Request) -> None:
    try:
        content = await plain_body(request)
    except (RequestRejected, HTTPException):
        return
    turn = turn_of(content, request.headers.get("content-type", ""))
    if turn is not None:
        host_of(request).runs.skip(*turn, caller_of(request).owner)
