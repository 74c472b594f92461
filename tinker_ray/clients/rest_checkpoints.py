"""The calls of ``RestClient`` about checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.pages import PAGE, Pages
from tinker_ray.clients.registry_client import RegistryClient
from tinker_ray.config import Secret, Settings
from tinker_ray.core.registry import RegistryCore
from tinker_ray.types import ParsedCheckpointTinkerPath

if TYPE_CHECKING:
    import os

    from tinker_ray.core.download import Downloaded, Progress
    from tinker_ray.types import (
        Checkpoint,
        CheckpointArchiveUrlResponse,
        CheckpointsListResponse,
        ExternalWeightsUrlsResponse,
        WeightsInfoResponse,
    )

_EXTERNAL = "external_weights/"


class CheckpointCalls(RegistryClient):
    """A part of :class:`tinker_ray.clients.rest.RestClient`."""

    # --- reading --------------------------------------------------------------------------------

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

    def iter_user_checkpoints(self, page_size: int = PAGE) -> Pages[Checkpoint]:
        """Give the checkpoints of all training runs, newest first: ``for`` or ``async for``."""

        def fetch(limit: int, offset: int) -> APIFuture[list[Checkpoint]]:
            page = self.list_user_checkpoints(limit, offset)
            return page.then(lambda response: response.checkpoints)

        return Pages(fetch, lambda checkpoint: checkpoint.tinker_path, page_size)

    def get_weights_info_by_tinker_path(self, tinker_path: str) -> APIFuture[WeightsInfoResponse]:
        """Tell what a checkpoint needs to be loaded."""
        ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        return self._call("weights_info", tinker_path=tinker_path)

    def get_checkpoint_archive_url(
        self, training_run_id: str, checkpoint_id: str
    ) -> APIFuture[CheckpointArchiveUrlResponse]:
        """Tell where a checkpoint's archive can be had without a key, and until when.

        Args:
            training_run_id: Whose checkpoint it is.
            checkpoint_id: As in the lists, such as ``weights/<name>``.
        """
        return self._call(
            "get_checkpoint_archive_url", run_id=training_run_id, checkpoint_id=checkpoint_id
        )

    async def get_checkpoint_archive_url_async(
        self, training_run_id: str, checkpoint_id: str
    ) -> CheckpointArchiveUrlResponse:
        """Async twin of :meth:`get_checkpoint_archive_url`."""
        return await self.get_checkpoint_archive_url(training_run_id, checkpoint_id)

    def get_checkpoint_archive_url_from_tinker_path(
        self, tinker_path: str
    ) -> APIFuture[CheckpointArchiveUrlResponse]:
        """Tell where a checkpoint's archive can be had without a key, and until when."""
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        return self.get_checkpoint_archive_url(parsed.training_run_id, parsed.checkpoint_id)

    async def get_checkpoint_archive_url_from_tinker_path_async(
        self, tinker_path: str
    ) -> CheckpointArchiveUrlResponse:
        """Async twin of :meth:`get_checkpoint_archive_url_from_tinker_path`."""
        return await self.get_checkpoint_archive_url_from_tinker_path(tinker_path)

    def get_external_weights_urls(self, tinker_path: str) -> APIFuture[ExternalWeightsUrlsResponse]:
        """Tell where each file of exported weights can be had without a key, and until when.

        Args:
            tinker_path: ``tinker://…/external_weights/…``, from ``save_weights_external``.

        Raises:
            ValueError: That is no path of exported weights.
        """
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        if not parsed.checkpoint_id.startswith(_EXTERNAL):
            message = (
                f"{tinker_path} is no export: only paths with /{_EXTERNAL}, as "
                "save_weights_external() returns them, have files to download"
            )
            raise ValueError(message)
        return self._call(
            "get_external_weights_urls",
            run_id=parsed.training_run_id,
            checkpoint_id=parsed.checkpoint_id,
        )

    async def get_external_weights_urls_async(
        self, tinker_path: str
    ) -> ExternalWeightsUrlsResponse:
        """Async twin of :meth:`get_external_weights_urls`."""
        return await self.get_external_weights_urls(tinker_path)

    # --- downloading ----------------------------------------------------------------------------

    def download_checkpoint_archive(
        self,
        tinker_path: str,
        destination: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
        overwrite: bool = False,
    ) -> APIFuture[Downloaded]:
        """Download a checkpoint's archive into this process's file system.

        What has arrived stays beside the destination until all is there, for the next call to go on
        from; a SHA-256 that the service names is checked. Cancelling the future stops it.

        Args:
            tinker_path: The checkpoint.
            destination: The file, or a folder to put ``<run>_<kind>_<name>.tar`` into.
            progress: Hears the bytes so far and in all (None if unknown), in the thread of the
                clients: it should return at once.
            overwrite: Replace a file that is there.

        Raises:
            ValueError: The path has the wrong shape.
            FileNotFoundError: There is no such folder.
            FileExistsError: There is such a file.
        """
        name = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path).tinker_path
        file = Path(destination).expanduser().absolute()
        if file.is_dir():
            file /= f"{name.removeprefix('tinker://').replace('/', '_')}.tar"
        if not file.parent.is_dir():
            message = f"there is no folder {file.parent}: make it, or name another destination"
            raise FileNotFoundError(message)
        if file.exists() and not overwrite:
            message = f"{file} exists: pass overwrite=True to replace it"
            raise FileExistsError(message)
        return APIFuture.start(self._download(tinker_path, file, progress, overwrite))

    async def download_checkpoint_archive_async(
        self,
        tinker_path: str,
        destination: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Downloaded:
        """Async twin of :meth:`download_checkpoint_archive`."""
        return await self.download_checkpoint_archive(
            tinker_path, destination, progress=progress, overwrite=overwrite
        )

    async def _download(
        self,
        tinker_path: str,
        file: Path,
        progress: Progress | None,
        overwrite: bool,  # noqa: FBT001 - passed on
    ) -> Downloaded:
        from tinker_ray.core.download import download_checkpoint

        link = await self._session.link()
        return await download_checkpoint(
            self._session.settings,
            link.flags,
            RegistryCore(link),
            tinker_path,
            file,
            progress=progress,
            overwrite=overwrite,
        )

    # --- changing -------------------------------------------------------------------------------

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
        return self._change("delete_checkpoint", tinker_path)

    async def delete_checkpoint_from_tinker_path_async(self, tinker_path: str) -> None:
        """Async twin of :meth:`delete_checkpoint_from_tinker_path`."""
        await self.delete_checkpoint_from_tinker_path(tinker_path)

    def publish_checkpoint_from_tinker_path(self, tinker_path: str) -> APIFuture[None]:
        """Let everybody load a checkpoint and sample from it."""
        return self._change("publish_checkpoint", tinker_path)

    async def publish_checkpoint_from_tinker_path_async(self, tinker_path: str) -> None:
        """Async twin of :meth:`publish_checkpoint_from_tinker_path`."""
        await self.publish_checkpoint_from_tinker_path(tinker_path)

    def unpublish_checkpoint_from_tinker_path(self, tinker_path: str) -> APIFuture[None]:
        """Let only its owner use a checkpoint again."""
        return self._change("unpublish_checkpoint", tinker_path)

    async def unpublish_checkpoint_from_tinker_path_async(self, tinker_path: str) -> None:
        """Async twin of :meth:`unpublish_checkpoint_from_tinker_path`."""
        await self.unpublish_checkpoint_from_tinker_path(tinker_path)

    def set_checkpoint_ttl_from_tinker_path(
        self, tinker_path: str, ttl_seconds: int | None
    ) -> APIFuture[None]:
        """Let a checkpoint expire so many seconds from now; None lets it live."""
        return self._change("set_checkpoint_ttl", tinker_path, ttl_seconds=ttl_seconds)

    async def set_checkpoint_ttl_from_tinker_path_async(
        self, tinker_path: str, ttl_seconds: int | None
    ) -> None:
        """Async twin of :meth:`set_checkpoint_ttl_from_tinker_path`."""
        await self.set_checkpoint_ttl_from_tinker_path(tinker_path, ttl_seconds)

    def copy_weights(
        self,
        path: str,
        destination_project_id: str | None = None,
        *,
        ttl_seconds: int | None = None,
        weights_access_token: str | None = None,
    ) -> APIFuture[str]:
        """Copy a checkpoint into a project; gives the path of the copy.

        Args:
            path: ``tinker://…``
            destination_project_id: Else ``TINKER_PROJECT_ID``.
            ttl_seconds: When the copy expires; None for never.
            weights_access_token: Lets this account read a checkpoint of another one. It stays in
                this process, on a cluster too.

        Raises:
            ValueError: There is no project.
        """
        project = destination_project_id or Settings.from_env().project_id
        if not project:
            message = (
                "copy_weights needs a project to copy into: pass destination_project_id, or set "
                "TINKER_PROJECT_ID"
            )
            raise ValueError(message)
        return self._call(
            "copy_weights",
            source_path=path,
            destination_project_id=project,
            ttl_seconds=ttl_seconds,
            weights_access_token=Secret(weights_access_token) if weights_access_token else None,
        )

    async def copy_weights_async(
        self,
        path: str,
        destination_project_id: str | None = None,
        *,
        ttl_seconds: int | None = None,
        weights_access_token: str | None = None,
    ) -> str:
        """Async twin of :meth:`copy_weights`."""
        return await self.copy_weights(
            path,
            destination_project_id,
            ttl_seconds=ttl_seconds,
            weights_access_token=weights_access_token,
        )

    def _change(self, name: str, tinker_path: str, **arguments: Any) -> APIFuture[None]:  # noqa: ANN401
        """Call what changes a checkpoint, unless the path is malformed."""
        ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        return self._call(name, tinker_path=tinker_path, **arguments)
