from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tinker_ray.config import telemetry_environment
from tinker_ray.telemetry.log import start_log

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("tinker_ray", "actors", "httpx")


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Give every test loggers that nobody has set up."""
    before = {name: logging.getLogger(name).level for name in NAMES}
    for name in NAMES:
        logging.getLogger(name).setLevel(logging.NOTSET)
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def levels() -> list[int]:
    return [logging.getLogger(name).level for name in NAMES]


@pytest.mark.parametrize("value, level", [("debug", logging.DEBUG), ("INFO", logging.INFO)])
def test_messages_and_requests_are_logged_if_asked_for(
    monkeypatch: pytest.MonkeyPatch, value: str, level: int
) -> None:
    monkeypatch.setenv("TINKER_LOG", value)
    start_log()
    assert [level] * 3 == levels()


@pytest.mark.parametrize("value", ["", "warning", "1"])
def test_else_requests_are_kept_out_of_the_applications_logs(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TINKER_LOG", value)
    start_log()
    assert [logging.NOTSET, logging.NOTSET, logging.WARNING] == levels()


def test_what_an_application_has_set_up_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINKER_LOG", raising=False)
    logging.getLogger("httpx").setLevel(logging.INFO)
    start_log()
    assert [logging.NOTSET, logging.NOTSET, logging.INFO] == levels()


def test_actors_log_as_their_driver_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_LOG", "debug")
    assert "debug" == telemetry_environment()["TINKER_LOG"]
