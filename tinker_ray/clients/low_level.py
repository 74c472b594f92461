"""Calls by path, for scripts that reach below the clients: upstream's ``holder.aclient(…)``.

A request goes out with the retries and the credential of every other. Knows nothing of what the
paths mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_ray.core.link import json_body, validate
from tinker_ray.errors import ConfigurationError
from tinker_ray.wire import json_value
from tinker_ray.wire.endpoint import Endpoint, Traffic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tinker_ray.core.link import Link


class LowLevelClient:
    """Sends requests by method and path.

    Args:
        open_link: Gives the connections.
        traffic: Whose connections to use.
    """

    def __init__(self, open_link: Callable[[], Awaitable[Link]], traffic: Traffic) -> None:
        self._open_link = open_link
        self._traffic = traffic

    async def get(self, path: str, *, cast_to: Any = None, options: Any = None) -> Any:  # noqa: ANN401
        """Get what is at a path.

        Args:
            path: Such as ``/api/v1/training_runs``.
            cast_to: A pydantic model of the answer; None gives the parsed JSON.
            options: ``params`` of the query and ``headers``, as a mapping.

        Raises:
            APIStatusError: The service refused.
            APIConnectionError: There was no answer.
        """
        return await self._send("GET", path, None, cast_to, options)

    async def post(
        self,
        path: str,
        *,
        cast_to: Any = None,  # noqa: ANN401 - a type
        body: Mapping[str, Any] | None = None,
        options: Any = None,  # noqa: ANN401 - a mapping
    ) -> Any:  # noqa: ANN401
        """Post a JSON body; otherwise as :meth:`get`."""
        return await self._send("POST", path, body, cast_to, options)

    async def put(
        self,
        path: str,
        *,
        cast_to: Any = None,  # noqa: ANN401 - a type
        body: Mapping[str, Any] | None = None,
        options: Any = None,  # noqa: ANN401 - a mapping
    ) -> Any:  # noqa: ANN401
        """Put a JSON body; otherwise as :meth:`get`."""
        return await self._send("PUT", path, body, cast_to, options)

    async def delete(
        self,
        path: str,
        *,
        cast_to: Any = None,  # noqa: ANN401 - a type
        body: Mapping[str, Any] | None = None,
        options: Any = None,  # noqa: ANN401 - a mapping
    ) -> Any:  # noqa: ANN401
        """Delete what is at a path; otherwise as :meth:`get`."""
        return await self._send("DELETE", path, body, cast_to, options)

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        cast_to: Any,  # noqa: ANN401
        options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if not path.startswith("/"):
            message = f"path={path!r} must begin with a slash, such as /api/v1/training_runs"
            raise ConfigurationError(message)
        endpoint = Endpoint(method, path.replace("{", "{{").replace("}", "}}"), self._traffic)
        given = dict(options or {})
        link = await self._open_link()
        response = await link.send(
            endpoint,
            None if method == "GET" else json_body(endpoint, body),
            query=given.get("params"),
            headers=given.get("headers"),
        )
        if cast_to is type(None):
            return None
        if hasattr(cast_to, "model_validate"):
            return validate(response, cast_to)
        return json_value.loads(response.content)
