from __future__ import annotations

from tinker_ray.transport.billing import BillingPause


def test_a_pause_lasts_as_long_as_the_service_allows() -> None:
    pause = BillingPause(3600)
    for now in range(1000, 4601, 5):
        assert pause.begins_or_goes_on(float(now))
        pause.is_to_be_told(float(now))
    assert not pause.begins_or_goes_on(4605.0)
    assert "since=1000.0" in repr(pause)


def test_a_pause_is_told_of_once_a_minute() -> None:
    pause = BillingPause()
    told = [now for now in range(0, 301, 5) if pause.is_to_be_told(float(now))]
    assert [0, 65, 130, 195, 260] == told


def test_a_402_long_after_the_last_begins_a_new_pause() -> None:
    pause = BillingPause(60)
    assert pause.begins_or_goes_on(0.0)
    assert pause.is_to_be_told(0.0)
    assert not pause.begins_or_goes_on(61.0)
    assert not pause.begins_or_goes_on(300.0)
    assert pause.begins_or_goes_on(300.5)
    assert pause.is_to_be_told(300.5)
