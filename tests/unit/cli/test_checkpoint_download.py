from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.fakes.rest import FakeClients, FakeRest, a_checkpoint
from tests.fakes.signed_files import PEFT_FILES, SignedFiles, archive_of
from tests.unit.cli.runner import run
from tinker_ray.clients.api_future import APIFuture
from tinker_ray.errors import APIStatusError, InternalServerError
from tinker_ray.types import GetSessionResponse, SaveWeightsExternalResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN = "s:train:0"
A = f"tinker://{RUN}/weights/a"
SAMPLER = f"tinker://{RUN}/sampler_weights/a"
EXPORT = f"tinker://{RUN}/external_weights/a"
TEMPORARY = "tinker://s:train:1/external_weights/download"
NAME = f"{RUN}_weights_a"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("path", [A, SAMPLER])
def test_an_archive_becomes_a_folder_named_after_the_checkpoint(here: Path, path: str) -> None:
    store = SignedFiles({f"signed:{path}": archive_of(PEFT_FILES)})
    rest = FakeRest(checkpoints=[a_checkpoint(path)])
    value = run("checkpoint", "download", path, "-f", "json", rest=rest, fetcher=store).value
    folder = Path(path.removeprefix("tinker://").replace("/", "_"))
    assert {
        "checkpoint_path": path,
        "destination": str(here / folder),
        "file_size_bytes": sum(map(len, PEFT_FILES.values())),
    } == value
    assert (PEFT_FILES, [str(folder)]) == (files_in(here / folder), names(here))


def test_the_folder_goes_where_it_is_told_to(here: Path) -> None:
    store = SignedFiles({f"signed:{A}": archive_of(PEFT_FILES)})
    rest = FakeRest(checkpoints=[a_checkpoint(A)])
    outcome = run("checkpoint", "download", A, "-o", "new/models", rest=rest, fetcher=store)
    assert PEFT_FILES == files_in(here / "new/models" / NAME)
    assert "Size 15 B" in outcome.lines


def test_a_folder_that_is_there_is_replaced_only_by_force(here: Path) -> None:
    (here / NAME).mkdir()
    (here / NAME / "old").write_bytes(b"1")
    store = SignedFiles({f"signed:{A}": archive_of(PEFT_FILES)})
    rest = FakeRest(checkpoints=[a_checkpoint(A)])
    outcome = run("checkpoint", "download", A, rest=rest, fetcher=store)
    assert (1, [], {"old": b"1"}) == (outcome.code, store.fetched, files_in(here / NAME))
    assert "--force" in outcome.errors
    assert 0 == run("checkpoint", "download", A, "--force", rest=rest, fetcher=store).code
    assert PEFT_FILES == files_in(here / NAME)


def test_a_malicious_archive_leaves_nothing(here: Path) -> None:
    store = SignedFiles({f"signed:{A}": archive_of({"../evil": b"x"})})
    rest = FakeRest(checkpoints=[a_checkpoint(A)])
    outcome = run("checkpoint", "download", A, rest=rest, fetcher=store)
    assert (1, []) == (outcome.code, names(here))
    assert "unsafe path" in outcome.errors


def test_an_export_is_downloaded_file_by_file(here: Path) -> None:
    store = SignedFiles({f"signed:{name}": content for name, content in PEFT_FILES.items()})
    rest = FakeRest(files=sorted(PEFT_FILES))
    outcome = run("checkpoint", "download", EXPORT, rest=rest, fetcher=store)
    assert 0 == outcome.code
    assert PEFT_FILES == files_in(here / f"{RUN}_external_weights_a")
    assert [f"signed:{name}" for name in sorted(PEFT_FILES)] == store.fetched


def test_an_export_with_an_unsafe_name_leaves_nothing(here: Path) -> None:
    rest = FakeRest(files=["../evil"])
    outcome = run("checkpoint", "download", EXPORT, rest=rest, fetcher=SignedFiles())
    assert (1, []) == (outcome.code, names(here))
    assert "unsafe path" in outcome.errors


def test_addresses_are_signed_again_before_they_expire() -> None:
    store = SignedFiles({f"signed:{name}": content for name, content in PEFT_FILES.items()})
    rest = FakeRest(files=sorted(PEFT_FILES), expires=datetime(2020, 1, 1, tzinfo=UTC))
    run("checkpoint", "download", EXPORT, rest=rest, fetcher=store)
    assert 3 == [name for name, _arguments in rest.calls].count("get_external_weights_urls")


@dataclass
class FakeTraining:
    """Exports."""

    made: list[Any] = field(default_factory=list)

    def save_weights_external(
        self, name: str, ttl_seconds: int | None = None
    ) -> APIFuture[SaveWeightsExternalResponse]:
        self.made.append((name, ttl_seconds))
        return APIFuture.of(SaveWeightsExternalResponse(path=TEMPORARY))


@dataclass
class FakeService:
    """A session that loads a checkpoint."""

    training: FakeTraining = field(default_factory=FakeTraining)
    loaded: list[str] = field(default_factory=list)
    closed: bool = False

    def create_training_client_from_state(
        self, path: str, *, user_metadata: Mapping[str, str]
    ) -> FakeTraining:
        assert user_metadata
        self.loaded.append(path)
        return self.training

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


def test_without_archives_a_training_checkpoint_is_exported_for_the_download(here: Path) -> None:
    store = SignedFiles({f"signed:{name}": content for name, content in PEFT_FILES.items()})
    rest = FakeRest(
        checkpoints=[a_checkpoint(A), a_checkpoint(TEMPORARY)],
        files=sorted(PEFT_FILES),
        archives=False,
    )
    service = FakeService()
    clients = FakeClients(rest, fake_service=service)
    outcome = run("checkpoint", "download", A, clients=clients, fetcher=store)
    assert 0 == outcome.code
    assert PEFT_FILES == files_in(here / NAME)
    assert ([A], [("download", 3600)], True) == (
        service.loaded,
        service.training.made,
        service.closed,
    )
    assert [A] == [checkpoint.tinker_path for checkpoint in rest.checkpoints]


def test_a_service_that_fails_to_give_an_archive_is_not_asked_for_an_export() -> None:
    failure = InternalServerError("Error code: 500", status_code=500)
    rest = FakeRest(checkpoints=[a_checkpoint(A)], failing={"get_checkpoint_archive_url": failure})
    outcome = run("checkpoint", "download", A, rest=rest, fetcher=SignedFiles())
    assert (1, True) == (outcome.code, "the service failed" in outcome.errors)


@pytest.mark.parametrize("code", [405, 410])
def test_a_call_that_is_gone_means_an_export_too(here: Path, code: int) -> None:
    store = SignedFiles({f"signed:{name}": content for name, content in PEFT_FILES.items()})
    rest = FakeRest(
        checkpoints=[a_checkpoint(A), a_checkpoint(TEMPORARY)],
        files=sorted(PEFT_FILES),
        failing={"get_checkpoint_archive_url": APIStatusError("gone", status_code=code)},
    )
    clients = FakeClients(rest, fake_service=FakeService())
    assert 0 == run("checkpoint", "download", A, clients=clients, fetcher=store).code
    assert PEFT_FILES == files_in(here / NAME)


def test_an_export_that_cannot_be_deleted_is_told(here: Path) -> None:
    store = SignedFiles({f"signed:{name}": content for name, content in PEFT_FILES.items()})
    rest = FakeRest(checkpoints=[a_checkpoint(A)], files=sorted(PEFT_FILES), archives=False)
    clients = FakeClients(rest, fake_service=FakeService())
    outcome = run("checkpoint", "download", A, clients=clients, fetcher=store)
    assert 0 == outcome.code
    assert f"{TEMPORARY} could not be deleted" in outcome.errors


def test_without_archives_a_sampler_checkpoint_cannot_be_had() -> None:
    rest = FakeRest(checkpoints=[a_checkpoint(SAMPLER)], archives=False)
    outcome = run("checkpoint", "download", SAMPLER, rest=rest, fetcher=SignedFiles())
    assert 1 == outcome.code
    assert "sampler checkpoints" in outcome.errors


@pytest.mark.parametrize("rest", [FakeRest(), FakeRest(archives=False)], ids=["new", "old"])
def test_a_checkpoint_that_is_not_there_is_not_exported(rest: FakeRest) -> None:
    outcome = run("checkpoint", "download", A, rest=rest, fetcher=SignedFiles())
    assert (1, True) == (outcome.code, outcome.errors.startswith("Error: not found"))


def test_a_trace_is_downloaded_or_its_address_printed(here: Path) -> None:
    store = SignedFiles({"signed:trace-1": b"trace"})
    session = GetSessionResponse(training_run_ids=[], sampler_ids=[])
    rest = FakeRest(sessions={"s": session})
    value = run("session", "export-trace", "s", "-f", "json", rest=rest, fetcher=store).value
    assert {"session_id": "s", "destination": "s.pftrace", "file_size_bytes": 5} == value
    assert b"trace" == (here / "s.pftrace").read_bytes()
    outcome = run("session", "export-trace", "s", "--url-only", rest=FakeRest(), fetcher=store)
    assert "signed:trace-1\n" == outcome.output
