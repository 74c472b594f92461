"""What a sampling client says of its samples besides what is to be drawn: a value."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinker_ray.limits.share import DEFAULT_LABEL

LONGEST_NAME = 256
"""Characters of a label or a conversation; they travel with every sample."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """The kind of traffic that a sample belongs to, and its conversation.

    Attributes:
        label: The kind of traffic, such as ``train`` or ``eval``; those of one label share what
            their weight gets them.
        weight: Of the label: what it gets of permits that are scarce, beside other labels.
        conversation: Samples that name the same one are drawn by the same sampler; empty for none.

    Raises:
        ValueError: The weight is not above 0, or a name is too long.
    """

    label: str = DEFAULT_LABEL
    weight: float = 1.0
    conversation: str = ""

    def __post_init__(self) -> None:
        """Check the values."""
        for name, value in (("label", self.label), ("conversation", self.conversation)):
            if len(value) > LONGEST_NAME:
                message = f"{name}={value!r:.60} must be a text of at most {LONGEST_NAME} letters"
                raise ValueError(message)
        if not 0.0 < self.weight < math.inf:
            message = f"weight={self.weight!r} must be a number above 0"
            raise ValueError(message)


ORDINARY = Traffic()
"""Of whoever says nothing."""
