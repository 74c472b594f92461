from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from tests.unit.rl.test_run_directory import CONFIG, record
from tinker_ray.clients.service import ServiceClient
from tinker_ray.clients.training import TrainingClient
from tinker_ray.errors import (
    APIStatusError,
    BadRequestError,
    ModelLostError,
    NotFoundError,
    PoisonedClientError,
    RequestFailedError,
    TinkerError,
)
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.record import Manifest
from tinker_ray.rl.restore import MAX_RESTORES, ModelStore
from tinker_ray.rl.run_directory import RunDirectory, open_run
from tinker_ray.rollouts import RolloutFailedError, RolloutsHaltedError
from tinker_ray.types import Datum

CHECKPOINT = "tinker://s:train:0/weights/step-0002"
FAILED = RequestFailedError("the node is gone", "r-1", "server")


@dataclass
class Model:
    """A training client, as far as it is looked at."""

    model_id: str
    failure: TinkerError | None = field(default=None, compare=False)

    async def forward(self, data: Sequence[Datum], loss_fn: str) -> None:
        assert (1, "cross_entropy") == (len(data), loss_fn)
        if self.failure is not None:
            raise self.failure


@dataclass
class Run:
    """A training run, as far as it is looked at."""

    corrupted: bool


@dataclass
class Service:
    """Opens models; what is in ``failures`` is raised instead, one after the other."""

    corrupted: bool | APIStatusError = False
    failures: list[TinkerError] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    opened: list[str | None] = field(default_factory=list)

    async def create_lora_training_client_async(
        self, base_model: str, *, rank: int, seed: int
    ) -> Model:
        del base_model, rank, seed
        return self._open(None)

    async def create_training_client_from_state_with_optimizer_async(self, path: str) -> Model:
        return self._open(path)

    def _open(self, path: str | None) -> Model:
        self.opened.append(path)
        if self.failures:
            raise self.failures.pop(0)
        return Model(f"s:train:{len(self.opened)}")

    def create_rest_client(self) -> Service:
        return self

    async def get_training_run_async(self, model_id: str) -> Run:
        self.asked.append(model_id)
        if isinstance(self.corrupted, APIStatusError):
            raise self.corrupted
        return Run(self.corrupted)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDirectory]:
    """A run that saved a checkpoint after step 2, and did a third."""
    with closing(open_run(CONFIG, root=tmp_path)) as run:
        run.write_manifest(Manifest(steps_done=2, checkpoint=CHECKPOINT))
        for step in (1, 2, 3):
            run.append_step(record(step))
        yield run


@dataclass
class Store:
    """A store over a service, and what it said."""

    service: Service
    directory: RunDirectory
    out: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        progress = Progress(Console(file=self.out, soft_wrap=True))
        client = cast("ServiceClient", self.service)
        self.models = ModelStore(client, CONFIG, self.directory, progress)

    async def reopen(self, error: TinkerError, probe: TinkerError | None = None) -> Any:  # noqa: ANN401 - a fake client, or none
        lost = cast("TrainingClient", Model("s:train:0", probe))
        return await self.models.reopen(lost, error)


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("there is no model"),
        APIStatusError("the model was unloaded", status_code=410),
        RolloutsHaltedError(failures=3, detail="no such sampling session", kind="gone"),
        RolloutFailedError(kind="gone", stage="every rollout", detail="no such sampling session"),
        RolloutFailedError(kind="gone", stage="fetch", detail="its trajectories are lost"),
    ],
)
async def test_what_is_gone_is_restored_from_the_last_checkpoint(
    directory: RunDirectory, error: TinkerError
) -> None:
    store = Store(Service(), directory)
    assert await store.reopen(error) == Model("s:train:1")
    assert ([CHECKPOINT], []) == (store.service.opened, store.service.asked)
    assert [1, 2] == [line.step for line in directory.steps()]
    assert (2, 1) == (directory.manifest.steps_done, directory.manifest.resumes)
    assert f"({error}): back to the last checkpoint" in store.out.getvalue()


@pytest.mark.parametrize("corrupted", [True, NotFoundError("there is no such run")])
async def test_an_operation_that_failed_on_a_corrupted_model_has_it_restored(
    directory: RunDirectory, *, corrupted: bool | APIStatusError
) -> None:
    store = Store(Service(corrupted), directory)
    assert await store.reopen(FAILED) == Model("s:train:1")
    assert (["s:train:0"], [CHECKPOINT]) == (store.service.asked, store.service.opened)
    assert "the model is lost (the node is gone): back to" in store.out.getvalue()


async def test_an_operation_that_failed_on_an_unloaded_model_has_it_restored(
    directory: RunDirectory,
) -> None:
    store = Store(Service(corrupted=False), directory)
    unloaded = APIStatusError("the model was unloaded", status_code=410)
    assert await store.reopen(FAILED, unloaded) == Model("s:train:1")


@pytest.mark.parametrize("probe", [FAILED, BadRequestError("no"), PoisonedClientError("no more")])
async def test_a_model_whose_every_operation_fails_otherwise_is_not_restored(
    directory: RunDirectory, probe: TinkerError
) -> None:
    store = Store(Service(corrupted=False), directory)
    assert await store.reopen(FAILED, probe) is None


@pytest.mark.parametrize(
    "error",
    [
        FAILED,
        BadRequestError("too long"),
        RolloutFailedError(kind="environment", stage="step", detail="broken"),
    ],
)
async def test_what_has_another_reason_restores_nothing(
    directory: RunDirectory, error: TinkerError
) -> None:
    store = Store(Service(corrupted=False), directory)
    assert await store.reopen(error) is None
    assert [] == store.service.opened
    assert [1, 2, 3] == [line.step for line in directory.steps()]


async def test_before_the_first_checkpoint_a_lost_model_is_made_anew(
    directory: RunDirectory,
) -> None:
    directory.write_manifest(Manifest(accuracy_before=0.3))
    store = Store(Service(), directory)
    assert await store.reopen(NotFoundError("gone")) == Model("s:train:1")
    assert ([None], [], 0.3) == (
        store.service.opened,
        directory.steps(),
        directory.manifest.accuracy_before,
    )
    assert "back to the beginning" in store.out.getvalue()


async def test_a_restore_that_fails_at_the_service_is_tried_again(directory: RunDirectory) -> None:
    store = Store(Service(failures=[FAILED]), directory)
    assert await store.reopen(NotFoundError("gone")) == Model("s:train:2")
    assert [CHECKPOINT] * 2 == store.service.opened


async def test_a_restore_that_fails_every_time_ends_the_run(directory: RunDirectory) -> None:
    store = Store(Service(failures=[FAILED] * 9), directory)
    with pytest.raises(ModelLostError, match=r"3 times .* the newest reason: the node") as caught:
        await store.reopen(NotFoundError("gone"))
    assert [CHECKPOINT] * MAX_RESTORES == store.service.opened
    assert (CHECKPOINT, FAILED) == (caught.value.checkpoint, caught.value.__cause__)


async def test_a_checkpoint_that_is_gone_as_well_ends_the_run_and_begins_nothing_anew(
    directory: RunDirectory,
) -> None:
    gone = NotFoundError("there is no checkpoint")
    store = Store(Service(failures=[gone]), directory)
    with pytest.raises(ModelLostError, match="cannot be restored: there is no checkpoint"):
        await store.reopen(NotFoundError("there is no model"))
    assert [CHECKPOINT] == store.service.opened
    assert CHECKPOINT == directory.manifest.checkpoint


async def test_only_losses_without_a_checkpoint_in_between_are_counted(
    directory: RunDirectory,
) -> None:
    store = Store(Service(), directory)
    for steps_done in (2, 4):
        directory.write_manifest(Manifest(steps_done=steps_done, checkpoint=CHECKPOINT))
        for _ in range(MAX_RESTORES):
            await store.reopen(NotFoundError("gone"))
    with pytest.raises(ModelLostError, match="without getting to the next checkpoint"):
        await store.reopen(NotFoundError("gone"))


async def test_a_run_that_is_begun_again_does_without_a_checkpoint_that_is_gone(
    directory: RunDirectory,
) -> None:
    store = Store(Service(failures=[NotFoundError("there is no checkpoint")]), directory)
    assert await store.models.open() == cast("TrainingClient", Model("s:train:2"))
    assert ([CHECKPOINT, None], []) == (store.service.opened, directory.steps())
    assert Manifest() == directory.manifest
