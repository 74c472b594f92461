"""Model inputs: an ordered list of chunks of text tokens and images.

Knows nothing of tokenizers or of the wire; lengths are in tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

ImageFormat = Literal["png", "jpeg"]


@dataclass(frozen=True, slots=True)
class EncodedTextChunk:
    """Token ids of text; a sequence of ints or an integer array."""

    tokens: Sequence[int] | npt.NDArray[np.integer]
    type: Literal["encoded_text"] = "encoded_text"

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        """Compare token by token, whatever the containers."""
        if not isinstance(other, EncodedTextChunk):
            return NotImplemented
        return bool(np.array_equal(np.asarray(self.tokens), np.asarray(other.tokens)))

    def __hash__(self) -> int:
        """Hash the tokens."""
        return hash(tuple(int(token) for token in self.tokens))


@dataclass(frozen=True, slots=True)
class ImageChunk:
    """An image as bytes; ``expected_tokens`` is what the caller believes it costs."""

    data: bytes = field(repr=False)
    format: ImageFormat
    expected_tokens: int | None = None
    type: Literal["image"] = "image"

    @property
    def length(self) -> int:
        """Number of tokens.

        Raises:
            ValueError: ``expected_tokens`` is unset.
        """
        return _expected(self.expected_tokens)


@dataclass(frozen=True, slots=True)
class ImageAssetPointerChunk:
    """An image that the service fetches from ``location``."""

    location: str
    format: ImageFormat
    expected_tokens: int | None = None
    type: Literal["image_asset_pointer"] = "image_asset_pointer"

    @property
    def length(self) -> int:
        """Number of tokens.

        Raises:
            ValueError: ``expected_tokens`` is unset.
        """
        return _expected(self.expected_tokens)


ModelInputChunk: TypeAlias = EncodedTextChunk | ImageChunk | ImageAssetPointerChunk


def _expected(expected_tokens: int | None) -> int:
    if expected_tokens is None:
        message = "the length of an image is unknown: set expected_tokens"
        raise ValueError(message)
    return expected_tokens


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A prompt or a training sequence."""

    chunks: Sequence[ModelInputChunk] = ()

    @classmethod
    def from_ints(cls, tokens: Sequence[int] | npt.NDArray[np.integer]) -> ModelInput:
        """Make an input of one text chunk."""
        return cls(chunks=[EncodedTextChunk(tokens=tokens)])

    @classmethod
    def empty(cls) -> ModelInput:
        """Make an input without chunks."""
        return cls(chunks=[])

    @property
    def length(self) -> int:
        """Number of tokens over all chunks."""
        return sum(chunk.length for chunk in self.chunks)

    def to_ints(self) -> list[int]:
        """Return the token ids.

        Raises:
            ValueError: There is a chunk that is not text.
        """
        tokens: list[int] = []
        for chunk in self.chunks:
            if not isinstance(chunk, EncodedTextChunk):
                message = f"to_ints needs text chunks only, found {type(chunk).__name__}"
                raise ValueError(message)  # noqa: TRY004 - upstream raises ValueError
            tokens.extend(int(token) for token in chunk.tokens)
        return tokens

    def append(self, chunk: ModelInputChunk) -> ModelInput:
        """Return a new input with ``chunk`` at its end."""
        return ModelInput(chunks=[*self.chunks, chunk])

    def append_int(self, token: int) -> ModelInput:
        """Return a new input with one more token, in the last chunk if that is text."""
        if self.chunks and isinstance(last := self.chunks[-1], EncodedTextChunk):
            longer = EncodedTextChunk(tokens=[*(int(t) for t in last.tokens), token])
            return ModelInput(chunks=[*self.chunks[:-1], longer])
        return self.append(EncodedTextChunk(tokens=[token]))
