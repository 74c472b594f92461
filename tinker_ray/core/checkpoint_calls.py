"""The REST calls about training runs, and about the checkpoints that are in them."""

from __future__ import annotations

import email.utils
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tinker_ray.core.link import plain_body
from tinker_ray.errors import APIResponseValidationError
from tinker_ray.types import (
    CheckpointArchiveUrlResponse,
    CheckpointsListResponse,
    CopyWeightsResponse,
    ExternalWeightsUrlsResponse,
    GetInfoResponse,
    ParsedCheckpointTinkerPath,
    TrainingRun,
    TrainingRunsResponse,
    WeightsInfoResponse,
)
from tinker_ray.wire import endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinker_ray.config import Secret
    from tinker_ray.core.link import Link

ARCHIVE_URL_LIFE = timedelta(minutes=15)
"""How long an archive's address is good if the service does not say."""
WEIGHTS_TOKEN_HEADER = "X-Tinker-Weights-Access-Token"  # noqa: S105 - a name


def scope_query(link: Link, access_scope: str | None) -> dict[str, str]:
    """Say whose things are asked for; services of the JSON era know no scopes."""
    if not link.flags.protobuf and access_scope is None:
        return {}
    return {"access_scope": access_scope or "owned"}


class CheckpointCalls:
    """A part of :class:`tinker_ray.core.registry.RegistryCore`."""

    _link: Link

    async def get_info(self, model_id: str) -> GetInfoResponse:
        """What a model is made of."""
        return await self._link.call(endpoint.GET_INFO, GetInfoResponse, {"model_id": model_id})

    async def weights_info(self, tinker_path: str) -> WeightsInfoResponse:
        """What a checkpoint needs to be loaded."""
        return await self._link.call(
            endpoint.WEIGHTS_INFO, WeightsInfoResponse, {"tinker_path": tinker_path}
        )

    # --- training runs --------------------------------------------------------------------------

    async def list_training_runs(
        self,
        limit: int,
        offset: int,
        access_scope: str | None = None,
        project_id: str | None = None,
    ) -> TrainingRunsResponse:
        """One page of training runs.

        Args:
            limit: Runs on the page.
            offset: Runs before the page.
            access_scope: ``owned`` or ``accessible``; None asks for the owned ones.
            project_id: Only runs of this project.
        """
        query: dict[str, str | int] = {"limit": limit, "offset": offset}
        query |= scope_query(self._link, access_scope)
        if project_id is not None:
            query["project_id"] = project_id
        return await self._link.call(endpoint.LIST_TRAINING_RUNS, TrainingRunsResponse, query=query)

    async def get_training_run(self, run_id: str, access_scope: str | None = None) -> TrainingRun:
        """One training run."""
        return await self._link.call(
            endpoint.GET_TRAINING_RUN,
            TrainingRun,
            path={"run_id": run_id},
            query=scope_query(self._link, access_scope),
        )

    # --- checkpoints: reads ---------------------------------------------------------------------

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

    async def get_checkpoint_archive_url(
        self, run_id: str, checkpoint_id: str
    ) -> CheckpointArchiveUrlResponse:
        """Where a checkpoint's archive can be had without a key, and until when.

        Raises:
            APIResponseValidationError: The answer is no address.
        """
        response = await self._link.send(
            endpoint.GET_CHECKPOINT_ARCHIVE,
            path={"run_id": run_id, "checkpoint_id": checkpoint_id},
            headers={"Accept": "application/gzip"},
        )
        url = response.headers.get("location")
        if not url:
            message = (
                f"the service did not say where the archive of {checkpoint_id} is "
                f"(status {response.status}, Location missing)"
            )
            raise APIResponseValidationError(message, status_code=response.status)
        return CheckpointArchiveUrlResponse(url=url, expires=_expires(response.headers))

    async def get_external_weights_urls(
        self, run_id: str, checkpoint_id: str
    ) -> ExternalWeightsUrlsResponse:
        """Where each file of exported weights can be had without a key."""
        return await self._link.call(
            endpoint.GET_EXTERNAL_WEIGHTS_URLS,
            ExternalWeightsUrlsResponse,
            path={"run_id": run_id, "checkpoint_id": checkpoint_id},
        )

    # --- checkpoints: changes -------------------------------------------------------------------

    async def delete_checkpoint(self, tinker_path: str) -> None:
        """Delete a checkpoint.

        Raises:
            ValueError: The path has the wrong shape.
        """
        await self._link.send(endpoint.DELETE_CHECKPOINT, path=_parts(tinker_path))

    async def publish_checkpoint(self, tinker_path: str) -> None:
        """Let everybody use a checkpoint.

        Raises:
            ValueError: The path has the wrong shape.
        """
        await self._link.send(endpoint.PUBLISH_CHECKPOINT, path=_parts(tinker_path))

    async def unpublish_checkpoint(self, tinker_path: str) -> None:
        """Let only its owner use a checkpoint again.

        Raises:
            ValueError: The path has the wrong shape.
        """
        await self._link.send(endpoint.UNPUBLISH_CHECKPOINT, path=_parts(tinker_path))

    async def set_checkpoint_ttl(self, tinker_path: str, ttl_seconds: int | None) -> None:
        """Let a checkpoint expire so many seconds from now; None lets it live.

        Raises:
            ValueError: The path has the wrong shape.
        """
        await self._link.send(
            endpoint.SET_CHECKPOINT_TTL,
            plain_body(endpoint.SET_CHECKPOINT_TTL, {"ttl_seconds": ttl_seconds}),
            path=_parts(tinker_path),
        )

    async def copy_weights(
        self,
        source_path: str,
        destination_project_id: str,
        ttl_seconds: int | None = None,
        weights_access_token: Secret | None = None,
    ) -> str:
        """Copy a checkpoint into a project and return the path of the copy.

        Args:
            source_path: ``tinker://…``
            destination_project_id: Whose the copy will be.
            ttl_seconds: When the copy expires; None for never.
            weights_access_token: Lets us read a checkpoint of another account. It does not pickle:
                such a call is for the process that was given it.
        """
        # One key for all repetitions, those of whole rounds too: one copy.
        headers = {"X-Idempotency-Key": str(uuid.uuid4())}
        if weights_access_token is not None:
            headers[WEIGHTS_TOKEN_HEADER] = weights_access_token.reveal()
        body = {
            "source_path": source_path,
            "destination_project_id": destination_project_id,
            "ttl_seconds": ttl_seconds,
        }
        copied = await self._link.call(
            endpoint.COPY_WEIGHTS, CopyWeightsResponse, body, headers=headers
        )
        return copied.tinker_path


def _parts(tinker_path: str) -> dict[str, str]:
    """Take a path apart.

    Raises:
        ValueError: It has the wrong shape.
    """
    parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
    return {"run_id": parsed.training_run_id, "checkpoint_id": parsed.checkpoint_id}


def _expires(headers: Mapping[str, str]) -> datetime:
    try:
        return email.utils.parsedate_to_datetime(headers.get("expires", ""))
    except ValueError:
        return datetime.now(UTC) + ARCHIVE_URL_LIFE
