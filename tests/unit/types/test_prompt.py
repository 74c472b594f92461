from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinker_ray.types import (
    DmelChunk,
    EncodedTextChunk,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInput,
)

IMAGE = ImageChunk(data=b"\x89PNG", format="png", expected_tokens=4)


def test_a_prompt_of_ints_is_one_text_chunk() -> None:
    prompt = ModelInput.from_ints([1, 2, 3])
    assert [EncodedTextChunk(tokens=[1, 2, 3])] == prompt.chunks
    assert 3 == prompt.length
    assert [1, 2, 3] == prompt.to_ints()


def test_an_array_of_tokens_equals_a_list_of_them() -> None:
    chunk = EncodedTextChunk(np.array([1, 2], dtype=np.int32))
    assert EncodedTextChunk([1, 2]) == chunk
    assert hash(EncodedTextChunk([1, 2])) == hash(chunk)
    assert EncodedTextChunk([1, 3]) != chunk
    assert chunk != [1, 2]
    assert [1, 2] == ModelInput([chunk]).to_ints()


def test_length_counts_text_and_the_expected_tokens_of_images() -> None:
    pointer = ImageAssetPointerChunk("s3://x", "jpeg", expected_tokens=10)
    assert 17 == ModelInput([EncodedTextChunk([1, 2, 3]), IMAGE, pointer]).length


@pytest.mark.parametrize("chunk", [ImageChunk(b"", "png"), ImageAssetPointerChunk("x", "png")])
def test_an_image_without_expected_tokens_has_no_length(
    chunk: ImageChunk | ImageAssetPointerChunk,
) -> None:
    with pytest.raises(ValueError, match="expected_tokens"):
        _ = ModelInput([chunk]).length


def test_only_text_has_token_ids() -> None:
    with pytest.raises(ValueError, match="ImageChunk"):
        ModelInput([IMAGE]).to_ints()


def test_append_gives_a_new_prompt() -> None:
    prompt = ModelInput.from_ints([1])
    longer = prompt.append(IMAGE)
    assert 1 == len(prompt.chunks)
    assert [EncodedTextChunk([1]), IMAGE] == longer.chunks


def test_append_int_extends_the_last_text_chunk() -> None:
    assert [EncodedTextChunk([1, 2])] == ModelInput.from_ints([1]).append_int(2).chunks


@pytest.mark.parametrize("prompt", [ModelInput.empty(), ModelInput([IMAGE])])
def test_append_int_starts_a_text_chunk_where_there_is_none(prompt: ModelInput) -> None:
    assert EncodedTextChunk([2]) == prompt.append_int(2).chunks[-1]


def test_the_bytes_of_an_image_stay_out_of_its_repr() -> None:
    assert "PNG" not in repr(IMAGE)


def test_bytes_may_be_given_as_base64() -> None:
    assert IMAGE == ImageChunk("iVBORw==", "png", 4)  # type: ignore[arg-type]  # as upstream takes it
    assert b"\x02\x00" == DmelChunk("AgA=").dmel  # type: ignore[arg-type]  # as upstream takes it


@pytest.mark.parametrize("data,error", [("%%%", ValueError), ("é", ValueError), (5, TypeError)])
def test_what_is_neither_bytes_nor_base64_is_refused(data: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="base64"):
        ImageChunk(data, "png")  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    "tokens,error",
    [
        ("text", TypeError),
        (b"bytes", TypeError),
        ({"input_ids": [1]}, TypeError),
        (5, TypeError),
        (np.array([1.5]), ValueError),
        (np.array([[1, 2]]), ValueError),
        (np.array(5), ValueError),
    ],
)
def test_what_is_no_list_of_tokens_is_refused(tokens: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="tokens are"):
        ModelInput.from_ints(tokens)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    "content,length",
    [
        (b"\x02\x01\x05", 5),
        (b"\x00\x02\x07\x03rest", 7),
        (b"\xfe\x07\x01\x80\x01", 128),
        (b"\x03\x01\xff\xff\xff\xff\x0f", 2**32 - 1),
    ],
)
def test_audio_is_as_long_as_its_container_says(content: bytes, length: int) -> None:
    assert length == ModelInput([DmelChunk(content)]).length


@pytest.mark.parametrize(
    "content,complaint",
    [
        (b"", "empty"),
        (b"\xfe", "cut off"),
        (b"\x08\x01\x05", "unknown dtype 8"),
        (b"\x02", "cut off"),
        (b"\x02\x02\x05", "cut off"),
        (b"\x02\x01\x80", "cut off"),
        (b"\x02\x01" + b"\x80" * 10, "too long"),
        (b"\x02\x00", "scalar"),
    ],
)
def test_what_is_no_container_has_no_length(content: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        _ = DmelChunk(content).length


def test_chunks_may_be_mappings_and_nothing_else() -> None:
    mapping: Any = {"tokens": [1], "type": "encoded_text"}
    assert ModelInput.from_ints([1]) == ModelInput([mapping])
    wrong: Any
    for wrong in (5, "text", [1, 2]):
        with pytest.raises(ValueError, match="a chunk has one of tokens, data, location, dmel"):
            ModelInput.empty().append(wrong)
