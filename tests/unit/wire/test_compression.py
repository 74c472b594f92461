from __future__ import annotations

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_ray.errors import WireFormatError
from tinker_ray.wire.compression import TooLargeError, compress, decompress

TEXT = bytes(range(256)) * 100
LIMIT = 1 << 20


def streamed(content: bytes) -> bytes:
    """A frame that does not tell its size."""
    frame = zstandard.ZstdCompressor().compressobj()
    return frame.compress(content) + frame.flush()


FRAMES = pytest.mark.parametrize("make_frame", [compress, streamed])


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=2000), st.integers(1, 200))
def test_what_was_compressed_comes_back(content: bytes, repeated: int) -> None:
    long = content * repeated
    assert long == decompress(compress(long), len(long))
    assert long == decompress(streamed(long), len(long))


def test_repetition_travels_cheaply() -> None:
    assert len(compress(TEXT)) < len(TEXT) / 10


@FRAMES
def test_more_than_is_wanted_is_refused(make_frame: type[bytes]) -> None:
    frame = make_frame(TEXT)
    assert TEXT == decompress(frame, len(TEXT))
    with pytest.raises(TooLargeError, match="more than 25599 bytes"):
        decompress(frame, len(TEXT) - 1)


@FRAMES
def test_a_bomb_is_refused_before_it_unfolds(make_frame: type[bytes]) -> None:
    with pytest.raises(TooLargeError):
        decompress(make_frame(bytes(8 * LIMIT)), LIMIT)


@FRAMES
@pytest.mark.parametrize("missing", [1, 5, 20])
def test_a_frame_that_is_cut_off_is_refused(make_frame: type[bytes], missing: int) -> None:
    with pytest.raises(WireFormatError, match="not zstd"):
        decompress(make_frame(TEXT)[:-missing], LIMIT)


@FRAMES
@pytest.mark.parametrize("extra", [b"x", compress(b"another"), b"x" * 5000])
def test_what_follows_a_frame_is_refused(make_frame: type[bytes], extra: bytes) -> None:
    with pytest.raises(WireFormatError, match="not zstd"):
        decompress(make_frame(TEXT) + extra, LIMIT)


@pytest.mark.parametrize("content", [b"", b"abc", TEXT])
def test_what_is_no_frame_is_refused(content: bytes) -> None:
    with pytest.raises(WireFormatError, match="not zstd"):
        decompress(content, LIMIT)
