from __future__ import annotations

import pytest

from tests.fakes.rest import FakeClients, FakeRest
from tests.unit.cli.runner import run
from tinker_ray import errors
from tinker_ray.cli.failure import explain


def test_a_refusal_is_explained_without_a_traceback() -> None:
    outcome = run("run", "info", "s:train:9")
    assert 1 == outcome.code
    assert "" == outcome.output
    assert "Error: not found: Error code: 404 - no such thing\n" == outcome.errors


def test_ctrl_c_ends_with_130() -> None:
    rest = FakeRest(failing={"get_training_run": KeyboardInterrupt()})
    assert 130 == run("run", "info", "s:train:0", rest=rest).code


def test_an_error_of_the_system_is_explained_too() -> None:
    rest = FakeRest(failing={"get_training_run": PermissionError(13, "Permission denied", "/x")})
    outcome = run("run", "info", "s:train:0", rest=rest)
    assert (1, "Error: [Errno 13] Permission denied: '/x'\n") == (outcome.code, outcome.errors)


def test_a_fault_of_ours_is_not_hidden() -> None:
    rest = FakeRest(failing={"get_training_run": KeyError("bug")})
    with pytest.raises(KeyError):
        run("run", "info", "s:train:0", rest=rest)


@pytest.mark.parametrize(
    "arguments", [("run", "nope"), ("run", "info"), ("run", "list", "--limit", "-1")]
)
def test_a_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    outcome = run(*arguments)
    assert (2, "") == (outcome.code, outcome.output)


@pytest.mark.parametrize(
    "error, words",
    [
        (errors.AuthenticationError("no", status_code=401), "tinker-ray auth login"),
        (errors.BillingError("no", status_code=402), "billing"),
        (errors.RateLimitError("no", status_code=429), "Wait a moment"),
        (errors.InternalServerError("no", status_code=503), "Try again later"),
        (errors.APITimeoutError(), "did not answer in time"),
        (errors.APIConnectionError(), "--base-url"),
        (errors.ConfigurationError("set it so"), "Error: set it so"),
    ],
)
def test_each_kind_of_error_says_what_to_do(error: errors.TinkerError, words: str) -> None:
    assert words in explain(error)


def test_the_address_may_stand_before_and_after_the_command() -> None:
    clients = FakeClients()
    run("--base-url", "http://a", "run", "list", clients=clients)
    run("run", "list", "--base-url", "http://b", clients=clients)
    run("run", "list", clients=clients)
    assert ["http://a", "http://b", None] == [address for address, _key in clients.asked]


def test_there_is_no_option_for_the_key_and_help_says_why() -> None:
    assert 2 == run("run", "list", "--api-key", "x").code
    helped = " ".join(run("run", "list", "--help").output.replace("│", " ").split())
    assert "never from an option" in helped
