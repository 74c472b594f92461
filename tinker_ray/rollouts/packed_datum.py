"""Training data straight from the arrays of a packed group.

Knows nothing of the losses but their inputs. Invariant: the data are those that
:mod:`tinker_ray.rollouts.datum` makes of the trajectories: packing joins the turns of an episode by
the same rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tinker_ray.types import Datum, ModelInput, TensorData

if TYPE_CHECKING:
    import numpy.typing as npt

    from tinker_ray.rollouts.packing import PackedGroup, Slice


@dataclass(slots=True)
class _Span:
    """Consecutive turns of which each observation extends what came before.

    Attributes:
        begin: Of the first observation, among the tokens of the group.
        end: Of the last action.
        actions: Where the actions and their logprobs are.
    """

    begin: int
    end: int
    actions: list[tuple[Slice, Slice]] = field(default_factory=list)

    @property
    def has_lesson(self) -> bool:
        """Whether any token was sampled that a position predicts: all but the very first."""
        return any(max(begin, self.begin + 1) < end for (begin, end), _ in self.actions)

    def datum(self, packed: PackedGroup, advantage: float) -> Datum:
        tokens = packed.tokens[self.begin : self.end]
        logprobs = np.zeros(len(tokens), dtype=np.float32)
        is_action = np.zeros(len(tokens), dtype=np.float32)
        for (begin, end), where in self.actions:
            logprobs[begin - self.begin : end - self.begin] = packed.logprobs[slice(*where)]
            is_action[begin - self.begin : end - self.begin] = 1.0
        return Datum(
            model_input=ModelInput.from_ints(tokens[:-1]),
            loss_fn_inputs={
                "target_tokens": TensorData.from_numpy(tokens[1:].astype(np.int64)),
                "logprobs": TensorData.from_numpy(logprobs[1:]),
                "advantages": TensorData.from_numpy(_weighted(is_action[1:], advantage)),
            },
        )


def datum_lengths(packed: PackedGroup, episode: int) -> list[int]:
    """Tell how many positions each of an episode's data has.

    Raises:
        ValueError: There are no logprobs, or an observation holds an image.
    """
    return [span.end - span.begin - 1 for span in _spans(packed, episode)]


def data_of(packed: PackedGroup, episode: int, advantage: float) -> list[Datum]:
    """Turn an episode into data, as :func:`tinker_ray.rollouts.datum.from_trajectory` does.

    Raises:
        ValueError: There are no logprobs, or an observation holds an image.
    """
    return [span.datum(packed, advantage) for span in _spans(packed, episode)]


def _spans(packed: PackedGroup, episode: int) -> list[_Span]:
    spans: list[_Span] = []
    for observation, action, logprobs in packed.places[episode][0]:
        if not isinstance(observation, tuple):
            message = f"episode {episode} has an observation that is not text"
            raise ValueError(message)  # noqa: TRY004 - as by value
        if logprobs is None:
            message = "logprobs are not available: the policy gave none"
            raise ValueError(message)
        if not spans or spans[-1].begin != observation[0]:
            spans.append(_Span(observation[0], action[1]))
        spans[-1].end = action[1]
        spans[-1].actions.append((action, logprobs))
    return [span for span in spans if span.has_lesson]


def _weighted(is_action_T: npt.NDArray[np.float32], advantage: float) -> npt.NDArray[np.float32]:
    return is_action_T * np.float32(advantage)
