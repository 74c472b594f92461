"""Opens the model of a run: a new one, that of the last checkpoint, and that again if it is lost.

Knows the service and the run directory, nothing of loops. Invariant: what is written of steps that
the opened model has not done is taken back first.
"""

from __future__ import annotations

from tinker_ray.clients.service import ServiceClient
from tinker_ray.clients.training import TrainingClient
from tinker_ray.errors import APIStatusError, NotFoundError, RequestFailedError, TinkerError
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.record import Manifest
from tinker_ray.rl.run_directory import RunDirectory
from tinker_ray.wire.status import says_gone


class ModelStore:
    """Where the models of a run come from."""

    def __init__(
        self,
        service: ServiceClient,
        config: RunConfig,
        directory: RunDirectory,
        progress: Progress,
    ) -> None:
        self._service = service
        self._config = config
        self._directory = directory
        self._progress = progress

    async def open(self) -> TrainingClient:
        """Open the model of the last checkpoint; a new one if there is none, or it is gone."""
        manifest = self._directory.manifest
        self._directory.forget_after(manifest.steps_done)
        if manifest.checkpoint is not None:
            try:
                opened = await self._service.create_training_client_from_state_with_optimizer_async(
                    manifest.checkpoint
                )
            except (NotFoundError, RequestFailedError) as error:
                self._progress.say(
                    f"the checkpoint {manifest.checkpoint} is gone ({error}): beginning anew"
                )
                self._directory.write_manifest(Manifest())
                self._directory.forget_after(0)
            else:
                self._progress.say(
                    f"going on after step {manifest.steps_done} from {manifest.checkpoint}"
                )
                self._directory.write_manifest(
                    manifest.model_copy(update={"resumes": manifest.resumes + 1})
                )
                return opened
        return await self._service.create_lora_training_client_async(
            self._config.base_model, rank=self._config.rank, seed=self._config.seed
        )

    async def reopen(self, lost: TrainingClient, error: TinkerError) -> TrainingClient | None:
        """Open the last checkpoint if the service does not have the model any more.

        Args:
            lost: The client of the model.
            error: What an operation ended with.

        Returns:
            None if the model is there: the error has another reason.
        """
        if not await self._is_lost(lost, error):
            return None
        self._progress.say(f"the model is lost ({error}): back to the last checkpoint")
        return await self.open()

    async def _is_lost(self, lost: TrainingClient, error: TinkerError) -> bool:
        if isinstance(error, APIStatusError):
            return says_gone(error)
        if not isinstance(error, RequestFailedError):
            return False
        try:  # an operation that failed may have had any reason
            run = await self._service.create_rest_client().get_training_run_async(lost.model_id)
        except APIStatusError as refused:
            return says_gone(refused)
        return run.corrupted
