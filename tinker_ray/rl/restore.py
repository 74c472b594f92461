"""Opens the model of a run: a new one, that of the last checkpoint, and that again if it is lost.

Knows the service and the run directory, nothing of loops. Invariants: what is written of steps that
the opened model has not done is taken back first; a run that goes on never begins anew once it has
saved something.
"""

from __future__ import annotations

from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.clients.service import ServiceClient
from tinker_ray.clients.training import TrainingClient
from tinker_ray.core.far_operation import NOTHING
from tinker_ray.errors import (
    APIStatusError,
    ModelLostError,
    NotFoundError,
    PoisonedClientError,
    RequestFailedError,
    TinkerError,
)
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.record import Manifest
from tinker_ray.rl.run_directory import RunDirectory
from tinker_ray.rl.supervised_config import AnyConfig, ExamplesConfig
from tinker_ray.rollouts import RolloutFailedError
from tinker_ray.rollouts.failure import FETCH
from tinker_ray.wire.status import says_gone

MAX_RESTORES = 3
"""How often in a row a model is restored to the same step."""


class ModelStore:
    """Where the models of a run come from."""

    def __init__(
        self,
        service: ServiceClient,
        config: AnyConfig,
        directory: RunDirectory,
        progress: Progress,
    ) -> None:
        self._service = service
        self._config = config
        self._directory = directory
        self._progress = progress
        self._restored_to = -1
        self._num_restores = 0

    async def open(self) -> TrainingClient:
        """Open the model of the last checkpoint; a new one if there is none, or it is gone.

        If an earlier step reached the target of the run, it is the checkpoint of that step.
        """
        self._go_back_to_target()
        checkpoint = self._directory.manifest.checkpoint
        try:
            return await self._open()
        except (NotFoundError, RequestFailedError) as error:
            if checkpoint is None:
                raise
            self._progress.say(f"the checkpoint {checkpoint} is gone ({error}): beginning anew")
            self._directory.write_manifest(Manifest())
            return await self._open()

    async def reopen(self, lost: TrainingClient, error: TinkerError) -> TrainingClient | None:
        """Open the last checkpoint if the service does not have the model any more.

        Nor if it has not what the model's newest weights are sampled from: what was sent to the
        model since the last checkpoint may be half a step.

        Args:
            lost: The client of the model.
            error: What an operation, or the rollouts, ended with.

        Returns:
            None if the model is there: the error has another reason.

        Raises:
            ModelLostError: It cannot be restored, or is lost again and again.
        """
        if not await self._is_lost(lost, error):
            return None
        steps_done = self._directory.manifest.steps_done
        back_to = "the last checkpoint" if steps_done else "the beginning"
        lost_is = "the model is lost"
        if isinstance(error, RolloutFailedError):
            is_fetch = error.stage == FETCH
            what = "every group of a step" if is_fetch else "the sampler of the newest weights"
            lost_is = f"{what} is gone"
        while True:
            self._count(steps_done, error)
            self._progress.say(f"{lost_is} ({error}): back to {back_to}")
            try:
                return await self._open()
            except RequestFailedError as failed:
                error = failed
            except APIStatusError as refused:
                raise self._unrestorable(f"it cannot be restored: {refused}") from refused

    def _count(self, steps_done: int, error: TinkerError) -> None:
        """Count the restores to a step."""
        if steps_done != self._restored_to:
            self._restored_to, self._num_restores = steps_done, 0
        if self._num_restores == MAX_RESTORES:
            times = f"it was restored {MAX_RESTORES} times without getting to the next checkpoint"
            raise self._unrestorable(f"{times}; the newest reason: {error}") from error
        self._num_restores += 1

    def _unrestorable(self, why: str) -> ModelLostError:
        checkpoint = self._directory.manifest.checkpoint
        words = f"the model of the run {self._directory.path} is lost, and {why}"
        return ModelLostError(words, checkpoint=checkpoint)

    async def _open(self) -> TrainingClient:
        manifest = self._directory.manifest
        self._directory.forget_after(manifest.steps_done)
        if manifest.checkpoint is None:
            return await self._new()
        opened = await self._service.create_training_client_from_state_with_optimizer_async(
            manifest.checkpoint
        )
        self._progress.say(f"going on after step {manifest.steps_done} from {manifest.checkpoint}")
        resumed = manifest.model_copy(update={"resumes": manifest.resumes + 1})
        self._directory.write_manifest(resumed)
        return opened

    async def _new(self) -> TrainingClient:
        config = self._config
        if isinstance(config, ExamplesConfig) and config.initial_weights is not None:
            return await self._service.create_training_client_from_state_async(
                config.initial_weights
            )
        return await self._service.create_lora_training_client_async(
            config.base_model, rank=config.rank, seed=config.seed
        )

    async def sample_from(self, checkpoint: str) -> SamplingClient | None:
        """Open a checkpoint to sample from it; None if it is gone."""
        try:
            model = await self._service.create_training_client_from_state_async(checkpoint)
            return await model.save_weights_and_get_sampling_client_async()
        except (NotFoundError, RequestFailedError):
            return None

    def _go_back_to_target(self) -> None:
        """Take back what was trained while an evaluation reached the target.

        The run does so by itself, unless it is killed in that moment.
        """
        config, steps_done = self._config, self._directory.manifest.steps_done
        if not isinstance(config, RunConfig) or config.target_accuracy is None:
            return
        for record in self._directory.steps():
            if record.step < steps_done and config.reaches_target(record.eval_accuracy):
                self._directory.go_back(record.step)
                return

    async def _is_lost(self, lost: TrainingClient, error: TinkerError) -> bool:
        if isinstance(error, RolloutFailedError):
            return error.kind == "gone"
        if isinstance(error, APIStatusError):
            return says_gone(error)
        if not isinstance(error, RequestFailedError):
            return False
        try:  # an operation that failed may have had any reason
            run = await self._service.create_rest_client().get_training_run_async(lost.model_id)
            if not run.corrupted:  # but a model that was unloaded takes no other one either
                await lost.forward([NOTHING], "cross_entropy")
        except APIStatusError as refused:
            return says_gone(refused)
        except (RequestFailedError, PoisonedClientError):
            return False
        return run.corrupted
