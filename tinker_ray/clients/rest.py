"""``RestClient``: what the service keeps, to list, look at and delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.ready import Ready
from tinker_ray.types import ParsedCheckpointTinkerPath

if TYPE_CHECKING:
    from tinker_ray.clients.session import ClientSession
    from tinker_ray.types import (
        CheckpointsListResponse,
        GetSamplerResponse,
        GetServerCapabilitiesResponse,
        GetSessionResponse,
        ListSessionsResponse,
        TrainingRun,
        TrainingRunsResponse,
        WeightsInfoResponse,
    )


class RestClient(Ready):
    """Training runs, checkpoints, sessions and samplers. Made by :class:`ServiceClient`.

    Every future raises an ``APIStatusError`` when the service refuses, ``NotFoundError`` for what
    does not exist; a malformed ``tinker://`` path is a ``ValueError`` at the call.
    """

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    def get_server_capabilities(self) -> APIFuture[GetServerCapabilitiesResponse]:
        """Tell which base models the service offers."""
        return self._call("get_server_capabilities")

    def get_training_run(self, training_run_id: str) -> APIFuture[TrainingRun]:
        """Tell about one training run."""
        return self._call("get_training_run", run_id=training_run_id)

    async def get_training_run_async(self, training_run_id: str) -> TrainingRun:
        """Async twin of :meth:`get_training_run`."""
        return await self.get_training_run(training_run_id)

    def get_training_run_by_tinker_path(self, tinker_path: str) -> APIFuture[TrainingRun]:
        """Tell about the training run of a checkpoint."""
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        return self.get_training_run(parsed.training_run_id)

    async def get_training_run_by_tinker_path_async(self, tinker_path: str) -> TrainingRun:
        """Async twin of :meth:`get_training_run_by_tinker_path`."""
        return await self.get_training_run_by_tinker_path(tinker_path)

    def list_training_runs(
        self, limit: int = 20, offset: int = 0
    ) -> APIFuture[TrainingRunsResponse]:
        """List a page of training runs."""
        return self._call("list_training_runs", limit=limit, offset=offset)

    async def list_training_runs_async(
        self, limit: int = 20, offset: int = 0
    ) -> TrainingRunsResponse:
        """Async twin of :meth:`list_training_runs`."""
        return await self.list_training_runs(limit, offset)

    def list_checkpoints(self, training_run_id: str) -> APIFuture[CheckpointsListResponse]:
        """List the checkpoints of a training run."""
        return self._call("list_checkpoints", run_id=training_run_id)

    async def list_checkpoints_async(self, training_run_id: str) -> CheckpointsListResponse:
        """Async twin of :meth:`list_checkpoints`."""
        return await self.list_checkpoints(training_run_id)

    def list_user_checkpoints(
        self, limit: int = 100, offset: int = 0
    ) -> APIFuture[CheckpointsListResponse]:
        """List a page of the checkpoints of all training runs, newest first."""
        return self._call("list_user_checkpoints", limit=limit, offset=offset)

    async def list_user_checkpoints_async(
        self, limit: int = 100, offset: int = 0
    ) -> CheckpointsListResponse:
        """Async twin of :meth:`list_user_checkpoints`."""
        return await self.list_user_checkpoints(limit, offset)

    def delete_checkpoint(self, training_run_id: str, checkpoint_id: str) -> APIFuture[None]:
        """Delete a checkpoint, named as in the lists (``weights/<name>``)."""
        return self.delete_checkpoint_from_tinker_path(
            f"tinker://{training_run_id}/{checkpoint_id}"
        )

    async def delete_checkpoint_async(self, training_run_id: str, checkpoint_id: str) -> None:
        """Async twin of :meth:`delete_checkpoint`."""
        await self.delete_checkpoint(training_run_id, checkpoint_id)

    def delete_checkpoint_from_tinker_path(self, tinker_path: str) -> APIFuture[None]:
        """Delete a checkpoint by its path."""
        ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        return self._call("delete_checkpoint", tinker_path=tinker_path)

    async def delete_checkpoint_from_tinker_path_async(self, tinker_path: str) -> None:
        """Async twin of :meth:`delete_checkpoint_from_tinker_path`."""
        await self.delete_checkpoint_from_tinker_path(tinker_path)

    def list_sessions(self, limit: int = 20, offset: int = 0) -> APIFuture[ListSessionsResponse]:
        """List a page of session ids."""
        return self._call("list_sessions", limit=limit, offset=offset)

    async def list_sessions_async(self, limit: int = 20, offset: int = 0) -> ListSessionsResponse:
        """Async twin of :meth:`list_sessions`."""
        return await self.list_sessions(limit, offset)

    def get_session(self, session_id: str) -> APIFuture[GetSessionResponse]:
        """Tell what a session made."""
        return self._call("get_session", session_id=session_id)

    async def get_session_async(self, session_id: str) -> GetSessionResponse:
        """Async twin of :meth:`get_session`."""
        return await self.get_session(session_id)

    def get_sampler(self, sampler_id: str) -> APIFuture[GetSamplerResponse]:
        """Tell which weights a sampling session uses."""
        return self._call("get_sampler", sampler_id=sampler_id)

    async def get_sampler_async(self, sampler_id: str) -> GetSamplerResponse:
        """Async twin of :meth:`get_sampler`."""
        return await self.get_sampler(sampler_id)

    def get_weights_info_by_tinker_path(self, tinker_path: str) -> APIFuture[WeightsInfoResponse]:
        """Tell what a checkpoint needs to be loaded."""
        ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        return self._call("weights_info", tinker_path=tinker_path)

    def _call(self, name: str, **arguments: Any) -> APIFuture[Any]:  # noqa: ANN401
        return APIFuture.start(self._run(name, arguments))

    async def _run(self, name: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        runtime = await self._session.runtime()
        return await runtime.registry.call(name, arguments)
