"""Trajectory groups as a few arrays, for the way between processes.

An observation mostly repeats what was said so far, so the tokens of an episode are kept once and
observations and actions are slices of them. Knows nothing of transports. Invariant: what is
unpacked equals what was packed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tinker_ray.rollouts.trajectory import Trajectory, TrajectoryGroup
from tinker_ray.types import EncodedTextChunk, ModelInput

if TYPE_CHECKING:
    import numpy.typing as npt

    from tinker_ray.rollouts.trajectory import TokensWithLogprobs, Transition

Slice: TypeAlias = tuple[int, int]
Place: TypeAlias = "Slice | ModelInput"
"""Where the tokens of an observation are; one that holds more than text stays as it is."""

WORTH_TOKENS = 4096
"""Below so many tokens, over all turns, a group travels as it is: packing has its cost, too."""
_NOTHING: Any = ModelInput.empty()


@dataclass(frozen=True, slots=True)
class PackedGroup:
    """A group whose tokens and logprobs are arrays.

    Attributes:
        group: The group, its observations and actions emptied.
        tokens: int32; of all episodes, one after the other.
        logprobs: float32, or float64 if that would change a value.
        places: By episode: where the observation and the action of each turn are, where the
            action's logprobs are (None if it has none), and where the final observation is.
    """

    group: TrajectoryGroup
    tokens: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.floating[Any]]
    places: list[tuple[list[tuple[Place, Slice, Slice | None]], Place]]


def pack(
    group: TrajectoryGroup, *, worth_tokens: int | None = None
) -> PackedGroup | TrajectoryGroup:
    """Pack a group; one that is small, or would suffer a loss, is returned as it is."""
    packer = _Packer()
    try:
        if _num_tokens(group) < (WORTH_TOKENS if worth_tokens is None else worth_tokens):
            return group
        places = [packer.add(trajectory) for trajectory in group.trajectories_G]
        tokens = np.asarray(packer.tokens, dtype=np.int64)
        exact = np.asarray(packer.logprobs, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):  # images of unknown length, above all
        return group
    narrow_tokens = tokens.astype(np.int32)
    if not np.array_equal(narrow_tokens, tokens) or np.isnan(exact).any():  # numpy makes None NaN
        return group
    with np.errstate(over="ignore"):
        narrow = exact.astype(np.float32)
    same = np.array_equal(narrow.astype(np.float64), exact)
    emptied = [_emptied(trajectory) for trajectory in group.trajectories_G]
    rest = replace(group, trajectories_G=emptied)
    return PackedGroup(rest, narrow_tokens, narrow if same else exact, places)


def unpack(packed: PackedGroup | TrajectoryGroup) -> TrajectoryGroup:
    """Restore a group. Its prompts share one array."""
    if isinstance(packed, TrajectoryGroup):
        return packed
    pairs = zip(packed.group.trajectories_G, packed.places, strict=True)
    trajectories = [
        Trajectory(
            [
                _restored(packed, turn, *place)
                for turn, place in zip(trajectory.transitions, turns, strict=True)
            ],
            _observation(packed, final),
            trajectory.stop_reason,
        )
        for trajectory, (turns, final) in pairs
    ]
    return replace(packed.group, trajectories_G=trajectories)


@dataclass(slots=True)
class _Packer:
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    _begin: int = 0

    def add(self, trajectory: Trajectory) -> tuple[list[tuple[Place, Slice, Slice | None]], Place]:
        self._begin = len(self.tokens)
        turns = [self._turn(transition) for transition in trajectory.transitions]
        return turns, self._observation(trajectory.final_ob)

    def _turn(self, transition: Transition) -> tuple[Place, Slice, Slice | None]:
        observation = self._observation(transition.ob)
        action = transition.ac
        begin = len(self.tokens)
        self.tokens += action.tokens
        if action.maybe_logprobs is None:
            return observation, (begin, len(self.tokens)), None
        first = len(self.logprobs)
        self.logprobs += action.maybe_logprobs
        return observation, (begin, len(self.tokens)), (first, len(self.logprobs))

    def _observation(self, observation: ModelInput) -> Place:
        """Append what an observation adds to the episode so far, or all of it."""
        chunks = observation.chunks
        if len(chunks) != 1 or not isinstance(chunks[0], EncodedTextChunk):
            return observation
        tokens = observation.to_ints()
        so_far = self.tokens[self._begin :]
        if tokens[: len(so_far)] != so_far:
            self._begin, so_far = len(self.tokens), []
        self.tokens += tokens[len(so_far) :]
        return self._begin, len(self.tokens)


def _num_tokens(group: TrajectoryGroup) -> int:
    turns = (turn for trajectory in group.trajectories_G for turn in trajectory.transitions)
    return sum(turn.ob.length + len(turn.ac.tokens) for turn in turns)


def _emptied(trajectory: Trajectory) -> Trajectory:
    turns = [
        replace(turn, ob=_NOTHING, ac=replace(turn.ac, tokens=[], maybe_logprobs=None))
        for turn in trajectory.transitions
    ]
    return Trajectory(turns, _NOTHING, trajectory.stop_reason)


def _restored(
    packed: PackedGroup, turn: Transition, ob: Place, tokens: Slice, logprobs: Slice | None
) -> Transition:
    values = None if logprobs is None else packed.logprobs[slice(*logprobs)].tolist()
    action: TokensWithLogprobs = replace(
        turn.ac, tokens=packed.tokens[slice(*tokens)].tolist(), maybe_logprobs=values
    )
    return replace(turn, ob=_observation(packed, ob), ac=action)


def _observation(packed: PackedGroup, place: Place) -> ModelInput:
    if isinstance(place, ModelInput):
        return place
    return ModelInput.from_ints(packed.tokens[slice(*place)])
