"""What the service keeps: training runs, checkpoints, sessions, samplers. Reads, and deletes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_ray.types import (
    CheckpointsListResponse,
    GetInfoResponse,
    GetSamplerResponse,
    GetServerCapabilitiesResponse,
    GetSessionResponse,
    ListSessionsResponse,
    ParsedCheckpointTinkerPath,
    TrainingRun,
    TrainingRunsResponse,
    WeightsInfoResponse,
)
from tinker_ray.wire import endpoint

if TYPE_CHECKING:
    from tinker_ray.core.link import Link


class RegistryCore:
    """The REST calls; each raises ``APIStatusError`` when the service refuses."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __repr__(self) -> str:
        """Show what it talks to."""
        return f"RegistryCore({self._link.transport!r})"

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call a method of this class by name: the form in which calls cross process borders."""
        return await getattr(self, name)(**arguments)

    async def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Which base models are offered."""
        return await self._link.call(
            endpoint.GET_SERVER_CAPABILITIES, GetServerCapabilitiesResponse
        )

    async def get_info(self, model_id: str) -> GetInfoResponse:
        """What a model is made of."""
        return await self._link.call(endpoint.GET_INFO, GetInfoResponse, {"model_id": model_id})

    async def weights_info(self, tinker_path: str) -> WeightsInfoResponse:
        """What a checkpoint needs to be loaded."""
        return await self._link.call(
            endpoint.WEIGHTS_INFO, WeightsInfoResponse, {"tinker_path": tinker_path}
        )

    async def list_training_runs(self, limit: int, offset: int) -> TrainingRunsResponse:
        """One page of training runs."""
        return await self._link.call(
            endpoint.LIST_TRAINING_RUNS,
            TrainingRunsResponse,
            query={"limit": limit, "offset": offset},
        )

    async def get_training_run(self, run_id: str) -> TrainingRun:
        """One training run."""
        return await self._link.call(
            endpoint.GET_TRAINING_RUN, TrainingRun, path={"run_id": run_id}
        )

    async def list_checkpoints(self, run_id: str) -> CheckpointsListResponse:
        """All checkpoints of a run."""
        return await self._link.call(
            endpoint.LIST_CHECKPOINTS, CheckpointsListResponse, path={"run_id": run_id}
        )

    async def list_user_checkpoints(self, limit: int, offset: int) -> CheckpointsListResponse:
        """One page of the checkpoints of all runs."""
        return await self._link.call(
            endpoint.LIST_USER_CHECKPOINTS,
            CheckpointsListResponse,
            query={"limit": limit, "offset": offset},
        )

    async def delete_checkpoint(self, tinker_path: str) -> None:
        """Delete a checkpoint.

        Raises:
            ValueError: The path has the wrong shape.
        """
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        path = {"run_id": parsed.training_run_id, "checkpoint_id": parsed.checkpoint_id}
        await self._link.send(endpoint.DELETE_CHECKPOINT, path=path)

    async def list_sessions(self, limit: int, offset: int) -> ListSessionsResponse:
        """One page of session ids."""
        return await self._link.call(
            endpoint.LIST_SESSIONS, ListSessionsResponse, query={"limit": limit, "offset": offset}
        )

    async def get_session(self, session_id: str) -> GetSessionResponse:
        """What a session made."""
        return await self._link.call(
            endpoint.GET_SESSION, GetSessionResponse, path={"session_id": session_id}
        )

    async def get_sampler(self, sampler_id: str) -> GetSamplerResponse:
        """Which weights a sampling session uses."""
        return await self._link.call(
            endpoint.GET_SAMPLER, GetSamplerResponse, path={"sampler_id": sampler_id}
        )
