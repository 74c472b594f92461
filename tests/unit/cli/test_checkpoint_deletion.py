from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakes.rest import NOON, FakeRest, a_checkpoint
from tests.unit.cli.runner import run

A, B = "tinker://s:train:0/weights/a", "tinker://s:train:0/sampler_weights/b"
LATE = "tinker://s:train:0/weights/late"


def three() -> FakeRest:
    late = a_checkpoint(LATE, time=NOON + timedelta(days=1))
    return FakeRest(checkpoints=[a_checkpoint(A), a_checkpoint(B), late])


def left(rest: FakeRest) -> list[str]:
    return [checkpoint.tinker_path for checkpoint in rest.checkpoints]


def test_paths_are_deleted_after_a_yes() -> None:
    rest = three()
    outcome = run("checkpoint", "delete", A, B, rest=rest, answer="y\n")
    assert [LATE] == left(rest)
    assert outcome.output.endswith("Deleted 2 checkpoints\n")
    assert A in outcome.errors


def test_a_no_deletes_nothing() -> None:
    rest = three()
    assert 1 == run("checkpoint", "delete", A, rest=rest, answer="n\n").code
    assert [A, B, LATE] == left(rest)


def test_without_an_answer_nothing_is_deleted() -> None:
    rest = three()
    assert 1 == run("checkpoint", "delete", A, rest=rest).code
    assert [A, B, LATE] == left(rest)


@pytest.mark.parametrize(
    "filters, deleted",
    [
        ((), [A, B, LATE]),
        (("--type", "sampler_weights"), [B]),
        (("--type", "training"), [A, LATE]),
        (("--before", "2026-06-02"), [A, B]),
        (("--after", "2026-06-01T12:00:00Z"), [LATE]),
        (("--before", "2026-06-01T12:00:01", "--type", "weights"), [A]),
        (("--after", "2027-01-01"), []),
    ],
)
def test_a_runs_checkpoints_are_chosen_by_type_and_time(
    filters: tuple[str, ...], deleted: list[str]
) -> None:
    rest = three()
    before = left(rest)
    outcome = run(
        "checkpoint", "delete", "--run-id", "s:train:0", *filters, "-y", "-f", "json", rest=rest
    )
    assert {"deleted_count": len(deleted), "failed": []} == outcome.value
    assert deleted == [path for path in before if path not in left(rest)]


def test_what_could_not_be_deleted_is_named_and_the_rest_is_deleted() -> None:
    rest = three()
    gone = "tinker://s:train:0/weights/gone"
    outcome = run("checkpoint", "delete", gone, A, "-y", "-f", "json", rest=rest)
    assert 1 == outcome.code
    assert {
        "deleted_count": 1,
        "failed": [{"tinker_path": gone, "error": "there is no such checkpoint"}],
    } == outcome.value
    assert [B, LATE] == left(rest)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (A, "--run-id", "s:train:0"),
        (A, "--type", "weights"),
        ("--run-id", "r", "--type", "nope"),
        ("--run-id", "r", "--before", "yesterday"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_asked(
    arguments: tuple[str, ...],
) -> None:
    rest = three()
    outcome = run("checkpoint", "delete", "-y", *arguments, rest=rest)
    assert (1, []) == (outcome.code, rest.calls)
    assert outcome.errors.startswith("Error: ")


def test_many_are_deleted_and_a_path_named_twice_once() -> None:
    paths = [f"tinker://s:train:0/weights/{number}" for number in range(70)]
    rest = FakeRest(checkpoints=[a_checkpoint(path) for path in paths])
    outcome = run("checkpoint", "delete", "-y", *paths, paths[0], rest=rest)
    assert ("Deleted 70 checkpoints\n", []) == (outcome.output, left(rest))
