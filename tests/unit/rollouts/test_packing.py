from __future__ import annotations

import math
import pickle
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_ray.rollouts import (
    RolloutError,
    TokensWithLogprobs,
    Trajectory,
    TrajectoryGroup,
    Transition,
    packing,
)
from tinker_ray.rollouts.packing import PackedGroup, pack, unpack
from tinker_ray.types import EncodedTextChunk, ImageChunk, ModelInput

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, scope="module")
def everything_is_worth_packing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WORTH_TOKENS", 0)
        yield


tokens = st.lists(st.integers(0, 2**31 - 1), max_size=6)
logprobs = st.floats(width=32, allow_nan=False) | st.floats(allow_nan=False)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    """Turns that mostly extend each other; some observations are rewritten, or hold an image."""
    history = draw(tokens)
    turns = []
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["extends", "extends", "new", "image", "chunks"]))
        history = [*history, *draw(tokens)] if kind == "extends" else draw(tokens)
        observation = ModelInput.from_ints(list(history))
        if kind == "image":
            observation = ModelInput([EncodedTextChunk(history), ImageChunk(b"x", "png", 3)])
        if kind == "chunks":
            observation = ModelInput([EncodedTextChunk(history), EncodedTextChunk([1])])
        action = draw(tokens)
        values = draw(st.none() | st.lists(logprobs, min_size=len(action), max_size=len(action)))
        ended = TokensWithLogprobs(action, values, draw(st.sampled_from(["stop", "length"])))
        turns.append(Transition(observation, ended, 1.5, False, {"m": 1}, {"l": "x"}))  # noqa: FBT003
        history = [*history, *action]
    return Trajectory(turns, ModelInput.from_ints(history), draw(st.sampled_from([None, "done"])))


@given(st.lists(trajectories(), max_size=3))
@settings(max_examples=60, deadline=None)
def test_what_is_unpacked_is_what_was_packed(found: list[Trajectory]) -> None:
    errors = [RolloutError("timeout", "slow")]
    group = TrajectoryGroup(found, [0.5] * len(found), [{"a": 1}] * len(found), errors)
    assert group == unpack(pickle.loads(pickle.dumps(pack(group))))  # noqa: S301 - our own bytes


def conversation(*, values: list[float | None], token: int = 70_000) -> TrajectoryGroup:
    history = [token] * 400
    turns = []
    for _ in range(6):
        action = TokensWithLogprobs([token] * len(values), values)  # type: ignore[arg-type] # None
        turns.append(Transition(ModelInput.from_ints(list(history)), action, 0.0, False))  # noqa: FBT003
        history += action.tokens
    return TrajectoryGroup([Trajectory(turns, ModelInput.from_ints(history))], [0.0], [{}])


def test_a_conversation_is_kept_once_and_is_a_fraction_of_its_size() -> None:
    group = conversation(values=[-0.5] * 200)
    packed = pack(group)
    assert isinstance(packed, PackedGroup)
    assert (400 + 6 * 200, 6 * 200) == (len(packed.tokens), len(packed.logprobs))
    assert len(pickle.dumps(packed)) < len(pickle.dumps(group)) / 3


def test_what_a_float32_cannot_hold_stays_as_it_is() -> None:
    group = conversation(values=[-0.1, -math.inf])
    packed = pack(group)
    assert isinstance(packed, PackedGroup)
    assert "float64" == packed.logprobs.dtype
    assert group == unpack(packed)


@pytest.mark.parametrize(
    "group",
    [conversation(values=[None, -0.5]), conversation(values=[-0.5], token=2**40)],
)
def test_what_would_suffer_travels_as_it_is(group: TrajectoryGroup) -> None:
    assert pack(group) is group


def test_small_groups_travel_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "WORTH_TOKENS", 10_000)
    group = conversation(values=[-0.5] * 20)
    assert pack(group) is group
