from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.engine.training.recorded_samples import KEPT_S, RecordedSample, RecordedSamples
from tinker_ray.errors import EngineError


def sample(length: int = 3, first: int = 10) -> RecordedSample:
    return RecordedSample(
        prompt=np.array([1, 2], np.int32),
        tokens=np.arange(first, first + length, dtype=np.int32),
        logprobs=np.linspace(-1, -2, length, dtype=np.float32),
    )


def test_a_sample_is_found_in_its_session_only() -> None:
    samples = RecordedSamples()
    kept = sample()
    samples.add("s", "q/0", kept)
    assert kept is samples.find("s", "q/0")
    with pytest.raises(EngineError, match="'q/0' is not recorded in this session"):
        samples.find("other", "q/0")


def test_a_sample_is_kept_for_a_day_after_its_last_use() -> None:
    now = [0.0]
    samples = RecordedSamples(now=lambda: now[0])
    samples.add("s", "used", sample())
    samples.add("s", "unused", sample())
    now[0] += KEPT_S
    samples.find("s", "used")
    now[0] += 1.0
    samples.find("s", "used")
    with pytest.raises(EngineError, match="more than a day ago"):
        samples.find("s", "unused")


def test_the_least_recently_used_sample_makes_room() -> None:
    size = sample().nbytes
    samples = RecordedSamples(max_bytes=3 * size)
    for name in ("a", "b", "c"):
        samples.add("s", name, sample())
    samples.find("s", "a")
    samples.add("s", "d", sample())
    samples.find("s", "a")
    with pytest.raises(EngineError, match="made room"):
        samples.find("s", "b")


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 40)), max_size=60))
def test_no_more_than_the_limit_is_ever_kept(added: list[tuple[str, int]]) -> None:
    samples = RecordedSamples(max_bytes=500)
    for name, length in added:
        samples.add("s", name, sample(length))
        kept = [item.nbytes for _, item in samples._samples.values()]
        assert sum(kept) == samples._size_bytes <= 500
