from __future__ import annotations

import pytest

from tests.fakes.rest import FakeRest, a_checkpoint, a_run
from tests.unit.cli.runner import run


def test_runs_are_listed_as_a_table() -> None:
    rest = FakeRest(runs=[a_run("s:train:0"), a_run("s:train:1", corrupted=True, is_lora=False)])
    outcome = run("run", "list", rest=rest)
    assert 0 == outcome.code
    assert [
        "2 training runs",
        "Run ID Base model LoRA Updated Status",
        "s:train:0 tiny rank 8 2026-06-01 ok",
        "s:train:1 tiny no 2026-06-01 failed",
    ] == outcome.lines


def test_a_script_gets_the_wires_keys_and_times() -> None:
    rest = FakeRest(runs=[a_run(last_checkpoint=a_checkpoint())])
    (listed,) = run("-f", "json", "run", "list", rest=rest).value["runs"]
    assert "2026-06-01T12:00:00Z" == listed["last_request_time"]
    assert "tinker://s:train:0/weights/a" == listed["last_checkpoint"]["tinker_path"]


def test_the_format_may_stand_before_and_after_the_command() -> None:
    rest = FakeRest(runs=[a_run()])
    before = run("--format", "json", "run", "info", "s:train:0", rest=rest)
    after = run("run", "info", "s:train:0", "--format=json", rest=rest)
    assert before == after
    assert "s:train:0" == after.value["training_run_id"]


def test_the_nearer_option_wins() -> None:
    outcome = run("-f", "json", "run", "list", "-f", "table")
    assert "0 training runs" == outcome.lines[0]


@pytest.mark.parametrize(
    "limit, fetched, asked",
    [
        ("3", 3, [(3, 0)]),
        ("0", 250, [(100, 0), (100, 100), (100, 200)]),
        ("120", 120, [(100, 0), (20, 100)]),
    ],
)
def test_a_limit_is_reached_by_pages_and_zero_means_all(
    limit: str, fetched: int, asked: list[tuple[int, int]]
) -> None:
    rest = FakeRest(runs=[a_run(f"s:train:{number}") for number in range(250)])
    outcome = run("run", "list", "--limit", limit, "-f", "json", rest=rest)
    assert [f"s:train:{number}" for number in range(fetched)] == [
        each["training_run_id"] for each in outcome.value["runs"]
    ]
    assert asked == [(call["limit"], call["offset"]) for _name, call in rest.calls]


def test_the_title_tells_what_is_not_shown() -> None:
    rest = FakeRest(runs=[a_run(f"s:train:{number}") for number in range(5)])
    outcome = run("run", "list", "--limit", "2", rest=rest)
    assert "2 training runs (3 more not shown: --limit 0 shows all)" == outcome.lines[0]


def test_columns_are_chosen_by_name() -> None:
    rest = FakeRest(runs=[a_run(last_checkpoint=a_checkpoint())])
    outcome = run("run", "list", "-c", "owner, checkpoint", rest=rest)
    assert ["Owner Checkpoint", "me weights/a"] == outcome.lines[1:]


def test_an_unknown_column_is_a_wrong_usage() -> None:
    outcome = run("run", "list", "--columns", "id,nope")
    assert 2 == outcome.code
    assert "checkpoint_time" in outcome.errors


def test_filters_are_passed_on_only_when_given() -> None:
    rest = FakeRest()
    run("run", "list", "--access-scope", "accessible", "--project-id", "p", rest=rest)
    run("run", "list", rest=rest)
    more = [
        {key: value for key, value in call.items() if key not in {"limit", "offset"}}
        for _name, call in rest.calls
    ]
    assert [{"access_scope": "accessible", "project_id": "p"}, {}] == more


def test_a_run_is_shown_with_its_checkpoints_and_metadata() -> None:
    described = a_run(last_checkpoint=a_checkpoint(), user_metadata={"team": "rl"})
    outcome = run("run", "info", "s:train:0", rest=FakeRest(runs=[described]))
    assert "Training run s:train:0" == outcome.lines[0]
    assert "Last checkpoint tinker://s:train:0/weights/a" in outcome.lines
    assert "Metadata team rl" in outcome.lines


def test_what_a_service_says_cannot_move_the_cursor() -> None:
    described = a_run(user_metadata={"note": "one\ntwo\x1b[2J"})
    outcome = run("run", "info", "s:train:0", rest=FakeRest(runs=[described]))
    assert "Metadata note one two [2J" == outcome.lines[-1]
    assert "\x1b" not in outcome.output


def test_an_unknown_scope_is_a_wrong_usage() -> None:
    assert 2 == run("run", "list", "--access-scope", "mine").code
