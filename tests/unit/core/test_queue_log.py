from __future__ import annotations

import pytest

from tinker_ray.core.queue_log import QueueLog


class Listener:
    """A log and the time that it sees."""

    def __init__(self, caplog: pytest.LogCaptureFixture, *, training: bool = False) -> None:
        make = QueueLog.of_training if training else QueueLog
        self.now = 1000.0
        self.log = make("x", lambda: self.now)
        self._caplog = caplog

    def hear(self, after_s: float, state: str, reason: str | None = None) -> str | None:
        """Return what people are told."""
        self.now += after_s
        self._caplog.clear()
        self.log.on_state(state, reason)
        return self._caplog.text.strip().partition("is paused by the service: ")[2] or None


@pytest.fixture
def sampler(caplog: pytest.LogCaptureFixture) -> Listener:
    return Listener(caplog)


@pytest.fixture
def training(caplog: pytest.LogCaptureFixture) -> Listener:
    return Listener(caplog, training=True)


def test_a_sampler_tells_at_once_and_once_a_minute(sampler: Listener) -> None:
    assert sampler.hear(0, "active") is None
    assert sampler.hear(1, "paused_capacity") == "the service is short of capacity"
    assert sampler.hear(59, "paused_capacity") is None
    assert sampler.hear(1, "paused_rate_limit") == "too many weights are sampled from at once"
    assert sampler.hear(120, "active") is None
    assert sampler.hear(1, "paused_of_tomorrow") == "unknown"


def test_the_services_own_words_are_preferred(sampler: Listener) -> None:
    assert sampler.hear(0, "paused_capacity", "maintenance until noon") == "maintenance until noon"


def test_training_tells_of_a_pause_of_a_quarter_of_an_hour(training: Listener) -> None:
    assert training.hear(0, "paused_rate_limit") is None
    assert training.hear(899, "paused_rate_limit") is None
    assert training.hear(1, "paused_rate_limit") == "too many models are trained at once"
    assert training.hear(30, "paused_rate_limit") is None
    assert training.hear(30, "paused_rate_limit") is not None
    assert training.hear(60, "active") is None
    assert training.hear(60, "paused_rate_limit") is None  # another pause
