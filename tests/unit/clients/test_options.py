from __future__ import annotations

import warnings
from typing import Any

import httpx
import pytest

from tinker_ray.clients import console
from tinker_ray.clients.options import NOT_GIVEN, Omit, resolve_base_url, settings_of
from tinker_ray.config import Settings
from tinker_ray.errors import ConfigurationError
from tinker_ray.transport.timeout import Timeout


def settings(**kwargs: Any) -> Settings:  # noqa: ANN401
    return settings_of(base_url="http://service", api_key="tml-a", **kwargs)


def test_the_older_generations_options_reach_the_settings() -> None:
    made = settings(max_retries=3, default_headers={"X-A": "1"}, default_query={"q": "2"})
    assert (3, {"X-A": "1"}, {"q": "2"}) == (
        made.max_retries,
        dict(made.default_headers or {}),
        dict(made.default_query or {}),
    )


@pytest.mark.parametrize(
    "timeout,expected",
    [(7, 7.0), (httpx.Timeout(9.0, connect=1.0), 9.0), (Timeout(5.0), 5.0), (NOT_GIVEN, None)],
)
def test_a_timeout_may_be_a_number_or_an_object(timeout: object, expected: float | None) -> None:
    plain = settings()
    expected = plain.timeout_s if expected is None else expected
    assert expected == settings(timeout=timeout).timeout_s


def test_an_http_client_of_ones_own_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="http_client"):
        settings(http_client=object())


def test_what_is_not_known_is_told_and_has_no_effect() -> None:
    with pytest.warns(FutureWarning, match="max_tries, time_out are not known"):
        settings(time_out=3, max_tries=2)


def test_what_upstream_takes_without_effect_is_taken_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings(_strict_response_validation=True, http_client=None)


def test_markers_count_as_nothing() -> None:
    assert not NOT_GIVEN
    assert not Omit()
    assert "NOT_GIVEN" == repr(NOT_GIVEN)


def test_the_address_is_the_one_given_or_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_BASE_URL", "http://environment")
    assert "http://given" == resolve_base_url("http://given")
    assert "http://environment" == resolve_base_url()


# --- the console ----------------------------------------------------------------------------------

CONSOLE = "https://tinker.thinkingmachines.ai"


def test_the_console_has_a_page_for_everything() -> None:
    assert {
        "sessions": f"{CONSOLE}/sessions",
        "session": f"{CONSOLE}/sessions/s",
        "run": f"{CONSOLE}/training_runs/s:train:0",
        "checkpoint": f"{CONSOLE}/checkpoints/s%3Atrain%3A0/weights%2Fa",
        "playground": (
            f"{CONSOLE}/playground?mode=checkpoint"
            "&checkpoint=tinker%3A%2F%2Fs%3Atrain%3A0%2Fweights%2Fa"
        ),
        "new key": f"{CONSOLE}/keys?new_key=true&key_name=my+key",
        "key": f"{CONSOLE}/keys/k%2F1",
    } == {
        "sessions": console.sessions_console_url(),
        "session": console.session_console_url("s"),
        "run": console.training_run_console_url("s:train:0"),
        "checkpoint": console.checkpoint_console_url("s:train:0", "weights/a"),
        "playground": console.checkpoint_playground_url("tinker://s:train:0/weights/a"),
        "new key": console.new_api_key_console_url("my key"),
        "key": console.api_key_console_url("k/1"),
    }
