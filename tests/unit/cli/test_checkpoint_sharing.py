from __future__ import annotations

import pytest

from tests.fakes.rest import FakeRest, a_checkpoint
from tests.unit.cli.runner import run

A = "tinker://s:train:0/weights/a"


@pytest.mark.parametrize("command", [("publish",), ("unpublish",), ("set-ttl", "--ttl", "5")])
def test_a_malformed_path_is_refused_before_anything_is_asked(command: tuple[str, ...]) -> None:
    rest = FakeRest()
    outcome = run("checkpoint", *command, "tinker://only-a-run", rest=rest)
    assert (1, []) == (outcome.code, rest.calls)
    assert "tinker://<run>/weights/<name>" in outcome.errors


def test_publishing_and_taking_it_back() -> None:
    rest = FakeRest(checkpoints=[a_checkpoint(A)])
    assert f"Published {A}\n" == run("checkpoint", "publish", A, rest=rest).output
    assert rest.checkpoints[0].public
    value = run("checkpoint", "unpublish", A, "-f", "json", rest=rest).value
    assert {"tinker_path": A, "public": False} == value
    assert not rest.checkpoints[0].public


def test_a_ttl_is_set_and_removed() -> None:
    rest = FakeRest(checkpoints=[a_checkpoint(A)])
    run("checkpoint", "set-ttl", A, "--ttl", "3600", rest=rest)
    run("checkpoint", "set-ttl", A, "--remove", rest=rest)
    assert [3600, None] == [call["ttl_seconds"] for _name, call in rest.calls]


@pytest.mark.parametrize("options", [(), ("--ttl", "5", "--remove")])
def test_a_ttl_needs_one_of_its_two_options(options: tuple[str, ...]) -> None:
    rest = FakeRest(checkpoints=[a_checkpoint(A)])
    outcome = run("checkpoint", "set-ttl", A, *options, rest=rest)
    assert (1, []) == (outcome.code, rest.calls)
    assert "--ttl" in outcome.errors
