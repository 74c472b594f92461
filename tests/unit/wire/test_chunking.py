from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_ray.errors import WireFormatError
from tinker_ray.types import (
    Datum,
    EncodedTextChunk,
    ForwardBackwardOutput,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInput,
    ModelInputChunk,
    TensorData,
)
from tinker_ray.wire.chunking import ChunkLimits, datum_bytes, join, join_metrics, split


def datum_of(num_tokens: int) -> Datum:
    return Datum(ModelInput.from_ints([0] * num_tokens))


def test_the_size_of_a_datum_is_what_the_contract_counts() -> None:
    chunks: list[ModelInputChunk] = [
        EncodedTextChunk([1, 2, 3]),
        ImageChunk(b"12345", "png"),
        ImageAssetPointerChunk("location", "png"),
    ]
    inputs = {
        "target_tokens": TensorData([1, 2, 3], "int64"),
        "weights": TensorData(np.ones(3), "float32"),
        "sparse": TensorData([5.0], "float32", [1, 3], [0, 1], [2]),
    }
    assert (3 * 4 + 5 + 8) + (3 * 8) + (3 * 4) + (4 + 3 * 8) == datum_bytes(
        Datum(ModelInput(chunks), inputs)
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 6), st.integers(0, 40))
def test_parts_hold_the_batch_in_order_within_the_limits(
    sizes: list[int], max_datums: int, max_bytes: int
) -> None:
    data = [datum_of(size) for size in sizes]
    parts = split(data, ChunkLimits(max_datums, max_bytes))
    assert data == [datum for part in parts for datum in part]
    for part in parts:
        assert 1 <= len(part) <= max_datums
        assert len(part) == 1 or sum(map(datum_bytes, part)) <= max_bytes


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 6), st.integers(0, 40))
def test_no_part_ends_before_it_has_to(sizes: list[int], max_datums: int, max_bytes: int) -> None:
    parts = split([datum_of(size) for size in sizes], ChunkLimits(max_datums, max_bytes))
    for part, following in itertools.pairwise(parts):
        too_big = sum(map(datum_bytes, [*part, following[0]])) > max_bytes
        assert len(part) == max_datums or too_big


def test_upstreams_example_gives_upstreams_parts() -> None:
    data = [datum_of(1)] * 2600
    assert [1024, 1024, 552] == [len(part) for part in split(data, ChunkLimits())]


@pytest.mark.parametrize(
    "key,expected",
    [
        ("loss:sum", {"loss:sum": 6.0}),
        ("loss:mean", {"loss:mean": 2.625}),
        ("loss:min", {"loss:min": 1.0}),
        ("loss:max", {"loss:max": 3.0}),
        ("loss:slack", {"loss:slack": 0.375}),
        ("loss:unique", {"loss:unique": 1.0, "loss:unique_1": 2.0, "loss:unique_2": 3.0}),
        ("loss:hash2", {"loss:hash2": 6.0}),
        ("loss:median", {}),
        ("loss:", {}),
    ],
)
def test_a_metric_is_joined_by_its_suffix(key: str, expected: dict[str, float]) -> None:
    parts = [{key: 1.0}, {key: 2.0}, {key: 3.0}]
    assert expected == join_metrics(parts, [1, 1, 6])


def test_hashes_wrap_at_64_bits() -> None:
    assert {"x:hash2": 2.0**11} == join_metrics(
        [{"x:hash2": 2.0**64 - 2**11}, {"x:hash2": 2**12}], [1, 1]
    )


def test_a_single_part_is_joined_by_the_same_rules() -> None:
    metrics = {"loss:sum": 1.5, "x:odd": 1.0, "y:slack": 2.0}
    assert {"loss:sum": 1.5, "y:slack": 0.0} == join_metrics([metrics], [4])


def test_only_metrics_that_every_part_has_are_joined() -> None:
    parts = [{"a:sum": 1.0, "b:sum": 1.0}, {"b:sum": 2.0, "c:sum": 9.0}]
    assert {"b:sum": 3.0} == join_metrics(parts, [1, 1])


@pytest.mark.parametrize("key", ["loss", "a:b:sum"])
def test_a_metric_without_exactly_one_colon_fails_the_call(key: str) -> None:
    with pytest.raises(WireFormatError, match=f"metrics.{key}"):
        join_metrics([{key: 1.0}], [1])


def test_results_are_concatenated_in_the_order_of_their_parts() -> None:
    def part(name: str, values: list[int]) -> ForwardBackwardOutput:
        outputs = [{"x": TensorData([value], "int64")} for value in values]
        return ForwardBackwardOutput(name, outputs, {"loss:sum": float(sum(values))})

    joined = join([part("First", [1, 2]), part("Second", [3])], [2, 1])
    assert part("First", [1, 2, 3]) == joined
