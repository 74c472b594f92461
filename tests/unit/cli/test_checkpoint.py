from __future__ import annotations

import pytest

from tests.fakes.rest import NOON, FakeRest, a_checkpoint, a_run
from tests.unit.cli.runner import run

A, B = "tinker://s:train:0/weights/a", "tinker://s:train:0/sampler_weights/b"


def test_checkpoints_of_all_runs_are_listed() -> None:
    rest = FakeRest(checkpoints=[a_checkpoint(A, public=True), a_checkpoint(B, size_bytes=None)])
    outcome = run("checkpoint", "list", rest=rest)
    assert [
        "2 checkpoints",
        "Checkpoint Type Size Public Created Expires Path",
        f"weights/a training 3.0 MB yes 2026-06-01 never {A}",
        f"sampler_weights/b sampler - no 2026-06-01 never {B}",
    ] == outcome.lines


def test_checkpoints_of_one_run_are_listed_whole() -> None:
    rest = FakeRest(checkpoints=[a_checkpoint(A), a_checkpoint("tinker://other/weights/a")])
    value = run("checkpoint", "list", "--run-id", "s:train:0", "-f", "json", rest=rest).value
    assert "s:train:0" == value["run_id"]
    assert [A] == [each["tinker_path"] for each in value["checkpoints"]]


def test_all_checkpoints_come_by_pages() -> None:
    many = [a_checkpoint(f"tinker://s:train:0/weights/{number}") for number in range(2500)]
    rest = FakeRest(checkpoints=many)
    outcome = run("checkpoint", "list", "--limit", "0", "-f", "json", rest=rest)
    assert 2500 == len(outcome.value["checkpoints"])
    assert [0, 1000, 2000] == [call["offset"] for _name, call in rest.calls]


def test_a_checkpoint_is_shown_with_what_its_run_adapts() -> None:
    rest = FakeRest(runs=[a_run()], checkpoints=[a_checkpoint(A, expires_at=NOON)])
    value = run("checkpoint", "info", A, "-f", "json", rest=rest).value
    assert (A, True, 8) == (value["tinker_path"], value["is_lora"], value["lora_rank"])
    assert "2026-06-01T12:00:00Z" == value["expires_at"]
    assert "LoRA rank 8" in run("checkpoint", "info", A, rest=rest).lines


def test_a_checkpoint_that_is_not_there_is_an_error_with_a_way_on() -> None:
    outcome = run("checkpoint", "info", A, rest=FakeRest(runs=[a_run()]))
    assert 1 == outcome.code
    assert f"there is no checkpoint {A}" in outcome.errors
    assert "checkpoint list --run-id s:train:0" in outcome.errors


@pytest.mark.parametrize("command", [("info",), ("delete", "-y")])
def test_a_malformed_path_is_refused_before_anything_is_asked(command: tuple[str, ...]) -> None:
    rest = FakeRest()
    outcome = run("checkpoint", *command, "tinker://only-a-run", rest=rest)
    assert (1, []) == (outcome.code, rest.calls)
    assert "tinker://<run>/weights/<name>" in outcome.errors
