"""Where the tokens of a datum come from: runs of the prompt or of the draws of earlier samples.

Runs tile what they describe: every position is in exactly one, positions follow from their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class _Span:
    """``length`` tokens from ``offset`` on.

    Attributes:
        sequence_id: ``SampledSequence.sequence_id`` of the sample concerned.
        offset: The position of the run's first token there.
        length: The number of consecutive tokens.
    """

    sequence_id: str
    offset: int = 0
    length: int

    def __post_init__(self) -> None:
        """Refuse what names no run.

        Raises:
            ValueError: A number is negative, or the id is empty.
        """
        name = type(self).__name__
        if not self.sequence_id:
            message = f"{name}.sequence_id is empty: name the sample that the tokens come from"
            raise ValueError(message)
        for field, number in (("offset", self.offset), ("length", self.length)):
            if number < 0:
                message = f"{name}.{field} is {number}: use 0 or more"
                raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class PromptProvenanceSpan(_Span):
    """A run of the prompt that a sample was drawn for."""


@dataclass(frozen=True, kw_only=True)
class SampledProvenanceSpan(_Span):
    """A run of the tokens that were drawn."""


ProvenanceSpans: TypeAlias = list[PromptProvenanceSpan | SampledProvenanceSpan]
