"""Model inputs: an ordered list of chunks of text tokens, images and audio.

Knows nothing of tokenizers or of the wire; lengths are in tokens.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from tinker_ray.types.tensor_container import container_shape
from tinker_ray.types.value import Value

if TYPE_CHECKING:
    import numpy.typing as npt

ImageFormat = Literal["png", "jpeg"]


@dataclass(frozen=True, slots=True)
class EncodedTextChunk(Value):
    """Token ids of text; a sequence of ints or an integer array."""

    tokens: Sequence[int] | npt.NDArray[np.integer]
    type: Literal["encoded_text"] = "encoded_text"

    def __post_init__(self) -> None:
        """Refuse what is no sequence of tokens, such as a text or what a tokenizer returns."""
        tokens: Any = self.tokens
        if isinstance(tokens, np.ndarray):
            if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
                message = (
                    f"tokens are a 1-D integer array, not {tokens.dtype} of {tokens.ndim} axes"
                )
                raise ValueError(message)
        elif not isinstance(tokens, Sequence) or isinstance(tokens, str | bytes):
            message = f"tokens are a list of ints or an integer array, not {type(tokens).__name__}"
            raise TypeError(message)

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
class ImageChunk(Value):
    """An image as bytes or base64; ``expected_tokens`` is what the caller believes it costs."""

    data: bytes = field(repr=False)
    format: ImageFormat
    expected_tokens: int | None = None
    type: Literal["image"] = "image"

    def __post_init__(self) -> None:
        """Decode base64 text."""
        object.__setattr__(self, "data", _bytes(self.data, "ImageChunk.data"))

    @property
    def length(self) -> int:
        """Number of tokens.

        Raises:
            ValueError: ``expected_tokens`` is unset.
        """
        return _expected(self.expected_tokens)


@dataclass(frozen=True, slots=True)
class ImageAssetPointerChunk(Value):
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


@dataclass(frozen=True, slots=True)
class DmelChunk(Value):
    """Audio as discrete mel tokens: a serialized tensor container, or its base64 text."""

    dmel: bytes = field(repr=False)
    type: Literal["dmel"] = "dmel"

    def __post_init__(self) -> None:
        """Decode base64 text."""
        object.__setattr__(self, "dmel", _bytes(self.dmel, "DmelChunk.dmel"))

    @property
    def length(self) -> int:
        """Number of tokens: the first dimension of the contained tensor.

        Raises:
            ValueError: The bytes are no tensor container, or hold a scalar.
        """
        shape = container_shape(self.dmel)
        if not shape:
            message = "a DmelChunk holds a tensor with at least one dimension, not a scalar"
            raise ValueError(message)
        return shape[0]


ModelInputChunk: TypeAlias = EncodedTextChunk | ImageChunk | ImageAssetPointerChunk | DmelChunk
_KINDS: dict[str, type[ModelInputChunk]] = {
    "tokens": EncodedTextChunk,
    "data": ImageChunk,
    "location": ImageAssetPointerChunk,
    "dmel": DmelChunk,
}
"""Kinds of chunks by the key that only they have: older clients send no ``type``."""
_CHUNK = tuple(_KINDS.values())


def _expected(expected_tokens: int | None) -> int:
    if expected_tokens is None:
        message = "the length of an image is unknown: set expected_tokens"
        raise ValueError(message)
    return expected_tokens


def _bytes(data: Any, where: str) -> bytes:  # noqa: ANN401 - what a caller may pass
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    if not isinstance(data, str):
        message = f"{where} is bytes or base64 text, not {type(data).__name__}"
        raise TypeError(message)
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:  # binascii.Error, or a character beyond ASCII
        message = f"{where} is no base64 text: {error}"
        raise ValueError(message) from error


def _chunk(value: object) -> ModelInputChunk:
    if isinstance(value, _CHUNK):
        return value
    if isinstance(value, Mapping):
        for key, kind in _KINDS.items():
            if key in value:
                return kind.model_validate(value)
    message = f"a chunk has one of {', '.join(_KINDS)}; got {value!r:.200}"
    raise ValueError(message)


@dataclass(frozen=True, slots=True)
class ModelInput(Value):
    """A prompt or a training sequence."""

    chunks: Sequence[ModelInputChunk] = ()

    def __post_init__(self) -> None:
        """Turn mappings into chunks; refuse what is neither."""
        if not all(isinstance(chunk, _CHUNK) for chunk in self.chunks):
            object.__setattr__(self, "chunks", [_chunk(chunk) for chunk in self.chunks])

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
