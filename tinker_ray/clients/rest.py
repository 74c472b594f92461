"""``RestClient``: what the service keeps, to list, look at and change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from tinker_ray.clients.admin import AdminCalls
from tinker_ray.clients.attribution import attributed
from tinker_ray.clients.pages import PAGE, Pages
from tinker_ray.clients.rest_checkpoints import CheckpointCalls
from tinker_ray.types import ParsedCheckpointTinkerPath

if TYPE_CHECKING:
    from tinker_ray.clients.api_future import APIFuture
    from tinker_ray.types import (
        GetSamplerResponse,
        GetServerCapabilitiesResponse,
        GetSessionResponse,
        ListSessionsResponse,
        SessionSearchRequest,
        SessionSearchResponse,
        TrainingRun,
        TrainingRunsResponse,
        WhoamiResponse,
    )

AccessScope: TypeAlias = Literal["owned", "accessible"]


@attributed
class RestClient(CheckpointCalls, AdminCalls):
    """Training runs, checkpoints, sessions and samplers.

    Make one directly, or with ``ServiceClient.create_rest_client``. It needs no session and opens
    none; nothing has to be closed. It can be pickled, and passed to any process that has
    credentials of its own.

    Args:
        base_url: The service, as for :class:`ServiceClient`.
        api_key: Else that of the environment.

    Every future raises an ``APIStatusError`` when the service refuses, ``NotFoundError`` for what
    does not exist; a malformed ``tinker://`` path is a ``ValueError`` at the call.
    """

    # --- the service ----------------------------------------------------------------------------

    def get_server_capabilities(self) -> APIFuture[GetServerCapabilitiesResponse]:
        """Tell which base models the service offers."""
        return self._call("get_server_capabilities")

    def whoami(self) -> APIFuture[WhoamiResponse]:
        """Tell whose credential this process uses, as its token says.

        Raises:
            UnfulfilledError: From the future: the credential is a plain key, of which the service
                makes no token.
        """
        return self._call("whoami")

    # --- training runs --------------------------------------------------------------------------

    def get_training_run(
        self, training_run_id: str, access_scope: AccessScope = "owned"
    ) -> APIFuture[TrainingRun]:
        """Tell about one training run."""
        return self._call("get_training_run", run_id=training_run_id, access_scope=access_scope)

    async def get_training_run_async(
        self, training_run_id: str, access_scope: AccessScope = "owned"
    ) -> TrainingRun:
        """Async twin of :meth:`get_training_run`."""
        return await self.get_training_run(training_run_id, access_scope)

    def get_training_run_by_tinker_path(
        self, tinker_path: str, access_scope: AccessScope = "owned"
    ) -> APIFuture[TrainingRun]:
        """Tell about the training run of a checkpoint."""
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        return self.get_training_run(parsed.training_run_id, access_scope)

    async def get_training_run_by_tinker_path_async(
        self, tinker_path: str, access_scope: AccessScope = "owned"
    ) -> TrainingRun:
        """Async twin of :meth:`get_training_run_by_tinker_path`."""
        return await self.get_training_run_by_tinker_path(tinker_path, access_scope)

    def list_training_runs(
        self,
        limit: int = 20,
        offset: int = 0,
        access_scope: AccessScope = "owned",
        project_id: str | None = None,
    ) -> APIFuture[TrainingRunsResponse]:
        """List a page of training runs, of one project if that is given."""
        return self._call(
            "list_training_runs",
            limit=limit,
            offset=offset,
            access_scope=access_scope,
            project_id=project_id,
        )

    async def list_training_runs_async(
        self,
        limit: int = 20,
        offset: int = 0,
        access_scope: AccessScope = "owned",
        project_id: str | None = None,
    ) -> TrainingRunsResponse:
        """Async twin of :meth:`list_training_runs`."""
        return await self.list_training_runs(limit, offset, access_scope, project_id)

    def iter_training_runs(
        self,
        page_size: int = PAGE,
        access_scope: AccessScope = "owned",
        project_id: str | None = None,
    ) -> Pages[TrainingRun]:
        """Give all training runs: ``for`` or ``async for``."""

        def fetch(limit: int, offset: int) -> APIFuture[list[TrainingRun]]:
            page = self.list_training_runs(limit, offset, access_scope, project_id)
            return page.then(lambda response: response.training_runs)

        return Pages(fetch, lambda run: run.training_run_id, page_size)

    # --- sessions and samplers ------------------------------------------------------------------

    def list_sessions(
        self, limit: int = 20, offset: int = 0, access_scope: AccessScope = "owned"
    ) -> APIFuture[ListSessionsResponse]:
        """List a page of session ids."""
        return self._call("list_sessions", limit=limit, offset=offset, access_scope=access_scope)

    async def list_sessions_async(
        self, limit: int = 20, offset: int = 0, access_scope: AccessScope = "owned"
    ) -> ListSessionsResponse:
        """Async twin of :meth:`list_sessions`."""
        return await self.list_sessions(limit, offset, access_scope)

    def iter_sessions(
        self, page_size: int = PAGE, access_scope: AccessScope = "owned"
    ) -> Pages[str]:
        """Give the ids of all sessions: ``for`` or ``async for``."""

        def fetch(limit: int, offset: int) -> APIFuture[list[str]]:
            page = self.list_sessions(limit, offset, access_scope)
            return page.then(lambda response: response.sessions)

        return Pages(fetch, lambda session_id: session_id, page_size)

    def get_session(
        self, session_id: str, access_scope: AccessScope = "owned"
    ) -> APIFuture[GetSessionResponse]:
        """Tell what a session made."""
        return self._call("get_session", session_id=session_id, access_scope=access_scope)

    async def get_session_async(
        self, session_id: str, access_scope: AccessScope = "owned"
    ) -> GetSessionResponse:
        """Async twin of :meth:`get_session`."""
        return await self.get_session(session_id, access_scope)

    def search_sessions(self, request: SessionSearchRequest) -> APIFuture[SessionSearchResponse]:
        """Find sessions of the organization by what they were opened with, newest first.

        Upstream calls this experimental, and warns.
        """
        return self._call("search_sessions", request=request)

    def assign_session_project(self, session_id: str, project_id: str) -> APIFuture[None]:
        """Move a session into a project."""
        return self._call("assign_session_project", session_id=session_id, project_id=project_id)

    async def assign_session_project_async(self, session_id: str, project_id: str) -> None:
        """Async twin of :meth:`assign_session_project`."""
        await self.assign_session_project(session_id, project_id)

    def export_session_trace(self, session_id: str) -> APIFuture[str]:
        """Have a trace made of what a session did; gives where it can be had without a key.

        Raises:
            UnfulfilledError: From the future: the service could not make it.
        """
        return self._call("export_session_trace", session_id=session_id)

    async def export_session_trace_async(self, session_id: str) -> str:
        """Async twin of :meth:`export_session_trace`."""
        return await self.export_session_trace(session_id)

    def get_sampler(self, sampler_id: str) -> APIFuture[GetSamplerResponse]:
        """Tell which weights a sampling session uses."""
        return self._call("get_sampler", sampler_id=sampler_id)

    async def get_sampler_async(self, sampler_id: str) -> GetSamplerResponse:
        """Async twin of :meth:`get_sampler`."""
        return await self.get_sampler(sampler_id)
