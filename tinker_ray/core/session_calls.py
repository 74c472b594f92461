"""The REST calls about sessions, and about the samplers that are in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_ray.core.checkpoint_calls import scope_query
from tinker_ray.core.link import plain_body
from tinker_ray.errors import APIResponseValidationError, UnfulfilledError
from tinker_ray.types import (
    GetSamplerResponse,
    GetSessionResponse,
    ListSessionsResponse,
    SessionSearchRequest,
    SessionSearchResponse,
    TraceExportResponse,
)
from tinker_ray.wire import endpoint

if TYPE_CHECKING:
    from tinker_ray.core.link import Link

TRACE_POLL_S = 5.0


class SessionCalls:
    """A part of :class:`tinker_ray.core.registry.RegistryCore`."""

    _link: Link

    async def list_sessions(
        self, limit: int, offset: int, access_scope: str | None = None
    ) -> ListSessionsResponse:
        """One page of session ids.

        Args:
            limit: Sessions on the page.
            offset: Sessions before the page.
            access_scope: ``owned`` or ``accessible``; None asks for the owned ones.
        """
        query: dict[str, str | int] = {"limit": limit, "offset": offset}
        query |= scope_query(self._link, access_scope)
        return await self._link.call(endpoint.LIST_SESSIONS, ListSessionsResponse, query=query)

    async def get_session(
        self, session_id: str, access_scope: str | None = None
    ) -> GetSessionResponse:
        """What a session made."""
        return await self._link.call(
            endpoint.GET_SESSION,
            GetSessionResponse,
            path={"session_id": session_id},
            query=scope_query(self._link, access_scope),
        )

    async def search_sessions(self, request: SessionSearchRequest) -> SessionSearchResponse:
        """One page of the sessions that fit, newest first."""
        body = request.model_dump(mode="json", exclude_none=True)
        return await self._link.call(endpoint.SEARCH_SESSIONS, SessionSearchResponse, body)

    async def assign_session_project(self, session_id: str, project_id: str) -> None:
        """Move a session into a project."""
        await self._link.send(
            endpoint.ASSIGN_SESSION_PROJECT,
            plain_body(endpoint.ASSIGN_SESSION_PROJECT, {"project_id": project_id}),
            path={"session_id": session_id},
        )

    async def finish_session(
        self, session_id: str, reason: str = "success", detail: str | None = None
    ) -> None:
        """Say that a session is over; the first reason that is given stands.

        Args:
            session_id: The session.
            reason: ``success``, ``errored`` or ``interrupted``.
            detail: For people.
        """
        await self._link.send(
            endpoint.FINISH_SESSION,
            plain_body(endpoint.FINISH_SESSION, {"reason": {"type": reason}, "detail": detail}),
            path={"session_id": session_id},
        )

    async def export_session_trace(self, session_id: str) -> str:
        """Have a trace made of what a session did, and return where it can be had without a key.

        Asks every 5 s until it is made.

        Raises:
            UnfulfilledError: The service could not make it.
        """
        path = {"session_id": session_id}
        while True:
            export = await self._link.call(
                endpoint.EXPORT_SESSION_TRACE, TraceExportResponse, path=path
            )
            if export.status == "failed":
                message = f"the trace of {session_id} could not be made: {export.error}"
                raise UnfulfilledError(message)
            if export.status == "ready":
                if export.url is None:
                    message = f"the trace of {session_id} is ready but the service names no address"
                    raise APIResponseValidationError(message)
                return export.url
            await self._link.clock.sleep(TRACE_POLL_S)

    async def get_sampler(self, sampler_id: str) -> GetSamplerResponse:
        """Which weights a sampling session uses."""
        return await _get_sampler(self._link, sampler_id)


async def base_model_of(link: Link, sampling_session_id: str) -> str:
    """Tell which base model is behind a sampling session."""
    return (await _get_sampler(link, sampling_session_id)).base_model


async def _get_sampler(link: Link, sampler_id: str) -> GetSamplerResponse:
    return await link.call(
        endpoint.GET_SAMPLER, GetSamplerResponse, path={"sampler_id": sampler_id}
    )
