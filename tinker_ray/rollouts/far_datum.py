"""Training data that are still to be made of far groups, and what becomes of them.

The process that sends a batch knows of each datum where its tokens are, how long it is and its
advantage; the process that has the service's ear makes it. Knows neither of them. Invariant: what
is made is what :func:`tinker_ray.rollouts.datum.from_groups` makes of the trajectories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tinker_ray.rollouts.datum import from_trajectory
from tinker_ray.rollouts.packed_datum import data_of
from tinker_ray.types import Datum
from tinker_ray.wire.chunking import parts_within

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.rollouts.advantage import Advantages
    from tinker_ray.rollouts.far import Reference
    from tinker_ray.rollouts.packing import PackedGroup
    from tinker_ray.rollouts.trajectory import TrajectoryGroup
    from tinker_ray.types import ForwardBackwardOutput
    from tinker_ray.wire.chunking import ChunkLimits

NUMBERS_PER_POSITION = 4
"""A token, a target, a logprob and an advantage."""
BYTES_PER_POSITION = 20
"""The target has eight bytes, the others four each."""


@dataclass(frozen=True, slots=True)
class FarDatum:
    """A datum that is still to be made.

    Attributes:
        group: Its group's place in the batch.
        reference: Where the group's trajectories are.
        episode: Which of them.
        number: Its place among the episode's data.
        length: How many positions it has.
        advantage: Of the episode.
    """

    group: int
    reference: Reference
    episode: int
    number: int
    length: int
    advantage: float


AnyDatum: TypeAlias = Datum | FarDatum


def far_data(groups_P: Sequence[TrajectoryGroup], advantages: Advantages) -> list[AnyDatum]:
    """Turn a batch into data without fetching anything, group by group.

    As :func:`tinker_ray.rollouts.datum.from_groups` does: episodes of advantage 0 are left out, and
    what is here already is made here.
    """
    data: list[AnyDatum] = []
    pairs = zip(groups_P, advantages.advantages_P_G, strict=True)
    for place, (group, advantages_G) in enumerate(pairs):
        for episode, advantage in enumerate(advantages_G):
            if advantage == 0.0:
                continue
            if group.far is None or not group.is_far:
                data += from_trajectory(group.trajectories_G[episode], advantage)
                continue
            lengths = group.far.summary.datum_lengths[episode]
            data += [
                FarDatum(place, group.far.reference, episode, number, length, advantage)
                for number, length in enumerate(lengths)
            ]
    return data


def split_far(data: Sequence[AnyDatum], limits: ChunkLimits) -> list[list[AnyDatum]]:
    """Cut a batch into the parts that the same data would be cut into if they were made."""

    def cost(item: AnyDatum) -> int:
        if isinstance(item, Datum):
            return limits.cost(item)
        in_bytes = limits.max_numbers is None
        return item.length * (BYTES_PER_POSITION if in_bytes else NUMBERS_PER_POSITION)

    return parts_within(limits, data, cost)


def assembled(items: Sequence[AnyDatum], fetched: Mapping[int, PackedGroup]) -> list[Datum]:
    """Make the data of a part of a batch, in order.

    Args:
        items: What to make; what is made already stays as it is.
        fetched: The packed groups, by their place in the batch; data of others are left out.
    """
    data: list[Datum] = []
    made: tuple[int, int] = (-1, -1)
    of_episode: list[Datum] = []
    for item in items:
        if isinstance(item, Datum):
            data.append(item)
        elif item.group in fetched:
            if made != (item.group, item.episode):
                made = (item.group, item.episode)
                of_episode = data_of(fetched[item.group], item.episode, item.advantage)
            data.append(of_episode[item.number])
    return data


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far sampler and trainer agree on the sampled tokens of a batch.

    Attributes:
        log_ratio: Sampler's logprob minus trainer's, added up.
        num_tokens: Over how many.
    """

    log_ratio: float = 0.0
    num_tokens: int = 0


def agreement(data: Sequence[Datum], output: ForwardBackwardOutput) -> Agreement:
    """Compare the logprobs that data were sampled with with those that training saw."""
    log_ratio, num_tokens = 0.0, 0
    for datum, result in zip(data, output.loss_fn_outputs, strict=True):
        sampled_T = datum.loss_fn_inputs["logprobs"].to_numpy()
        trained_T = result["logprobs"].to_numpy()
        is_action_T = datum.loss_fn_inputs["advantages"].to_numpy() != 0
        log_ratio += float(np.sum((sampled_T - trained_T)[is_action_T], dtype=np.float64))
        num_tokens += int(is_action_T.sum())
    return Agreement(log_ratio, num_tokens)
