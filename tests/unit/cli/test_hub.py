from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.rest import FakeRest, a_checkpoint
from tests.fakes.signed_files import PEFT_FILES, SignedFiles, archive_of
from tests.unit.cli.runner import Outcome, run
from tinker_ray.cli.failure import CommandError
from tinker_ray.cli.hub import Upload

if TYPE_CHECKING:
    from pathlib import Path

A = "tinker://s:train:0/weights/a"
OTHER = "tinker://s:train:0/weights/other"


@dataclass
class FakeHub:
    """Keeps pages and uploads."""

    logged_in: bool = True
    pages: dict[tuple[str, str | None], str] = field(default_factory=dict)
    uploads: list[tuple[Upload, dict[str, str]]] = field(default_factory=list)

    def check_login(self) -> None:
        if not self.logged_in:
            raise CommandError("not logged in to the hub", "hf auth login")

    def page(self, repo_id: str, revision: str | None) -> str | None:
        return self.pages.get((repo_id, revision))

    def upload(self, folder: Path, upload: Upload) -> None:
        self.uploads.append((upload, {path.name: path.read_text() for path in folder.iterdir()}))


def push(*options: str, hub: FakeHub, files: dict[str, bytes] = PEFT_FILES) -> Outcome:
    more: dict[str, Any] = {
        "fetcher": SignedFiles({f"signed:{A}": archive_of(files)}),
        "open_hub": lambda: hub,
    }
    rest = FakeRest(checkpoints=[a_checkpoint(A)])
    return run("checkpoint", "push-hf", A, *options, rest=rest, **more)


def test_an_adapter_is_uploaded_with_a_page_and_its_base_model() -> None:
    hub = FakeHub()
    outcome = push("--repo", "me/adapter", "-f", "json", hub=hub)
    assert {
        "checkpoint_path": A,
        "repo_id": "me/adapter",
        "revision": None,
        "public": False,
    } == outcome.value
    ((upload, files),) = hub.uploads
    assert Upload("me/adapter") == upload
    assert {*PEFT_FILES, "README.md"} == set(files)
    assert {"r": 8, "base_model_name_or_path": "org/tiny"} == json.loads(
        files["adapter_config.json"]
    )
    assert "Adapted: attn, mlp\n" in files["README.md"]


def test_every_option_reaches_the_hub() -> None:
    hub = FakeHub()
    push(
        *("-r", "me/adapter", "--public", "--revision", "b", "--commit-message", "m"),
        *("--create-pr", "--allow-pattern", "*.json", "--allow-pattern", "*.md"),
        *("--ignore-pattern", "*.bin", "--no-model-card"),
        hub=hub,
    )
    ((upload, files),) = hub.uploads
    assert upload == Upload(
        "me/adapter",
        private=False,
        revision="b",
        commit_message="m",
        create_pr=True,
        allow_patterns=["*.json", "*.md"],
        ignore_patterns=["*.bin"],
    )
    assert set(PEFT_FILES) == set(files)


def test_without_a_name_each_run_has_a_repository_and_each_checkpoint_a_branch() -> None:
    hub = FakeHub()
    push(hub=hub)
    ((upload, _files),) = hub.uploads
    assert ("tinker-tiny-s-train-0", "weights-a") == (upload.repo_id, upload.revision)


def test_a_page_that_the_checkpoint_brings_is_kept() -> None:
    hub = FakeHub()
    push("-r", "me/adapter", hub=hub, files={**PEFT_FILES, "README.md": b"mine"})
    assert "mine" == hub.uploads[0][1]["README.md"]


def test_a_repository_of_another_checkpoint_is_left_alone() -> None:
    hub = FakeHub(pages={("me/adapter", None): f"- Checkpoint: `{OTHER}`\n"})
    outcome = push("-r", "me/adapter", hub=hub)
    assert (1, []) == (outcome.code, hub.uploads)
    assert OTHER in outcome.errors


def test_the_same_checkpoint_may_be_uploaded_again() -> None:
    hub = FakeHub(pages={("me/adapter", None): f"- Checkpoint: `{A}`\n"})
    assert 0 == push("-r", "me/adapter", hub=hub).code


def test_nobody_logged_in_is_told_before_anything_is_fetched() -> None:
    hub = FakeHub(logged_in=False)
    outcome = push(hub=hub)
    assert (1, []) == (outcome.code, hub.uploads)
    assert "hf auth login" in outcome.errors


@pytest.mark.parametrize(
    "files", [{"adapter_config.json": b"{}"}, {"adapter_model.safetensors": b"1"}]
)
def test_what_peft_could_not_load_is_not_uploaded(files: dict[str, bytes]) -> None:
    hub = FakeHub()
    outcome = push("-r", "me/adapter", hub=hub, files=files)
    assert (1, []) == (outcome.code, hub.uploads)
    assert "no PEFT adapter" in outcome.errors
