from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_ray.errors import WireFormatError
from tinker_ray.types import (
    Datum,
    DmelChunk,
    EncodedTextChunk,
    ForwardBackwardOutput,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInput,
    ModelInputChunk,
    TensorData,
)
from tinker_ray.wire.chunking import (
    ChunkLimits,
    datum_bytes,
    datum_numbers,
    join,
    join_metrics,
    split,
)


def datum_of(num_tokens: int) -> Datum:
    return Datum(ModelInput.from_ints([0] * num_tokens))


def test_the_size_of_a_datum_is_what_the_contract_counts() -> None:
    chunks: list[ModelInputChunk] = [
        EncodedTextChunk([1, 2, 3]),
        ImageChunk(b"12345", "png"),
        ImageAssetPointerChunk("location", "png"),
        DmelChunk(b"1234"),
    ]
    inputs = {
        "target_tokens": TensorData([1, 2, 3], "int64"),
        "weights": TensorData(np.ones(3), "float32"),
        "sparse": TensorData([5.0], "float32", [1, 3], [0, 1], [2]),
    }
    datum = Datum(ModelInput(chunks), inputs)
    assert (3 * 4 + 5 + 8 + 4) + (3 * 8) + (3 * 4) + (4 + 3 * 8) == datum_bytes(datum)
    # JSON has no sparse layout: what is not listed is written out.
    assert (3 + 5 + 8 + 4) + 3 + 3 + 3 == datum_numbers(datum)


LIMITS = st.one_of(
    st.builds(ChunkLimits, st.integers(1, 6), st.integers(0, 40)),
    st.builds(ChunkLimits, st.integers(1, 6), max_numbers=st.integers(0, 40)),
)
BATCH = st.lists(st.integers(0, 12).map(datum_of), max_size=30)


@settings(max_examples=50, deadline=None)
@given(BATCH, LIMITS)
def test_parts_hold_the_batch_in_order_within_the_limits(
    data: list[Datum], limits: ChunkLimits
) -> None:
    parts = split(data, limits)
    assert data == [datum for part in parts for datum in part]
    for part in parts:
        assert 1 <= len(part) <= limits.max_datums
        assert len(part) == 1 or sum(map(limits.cost, part)) <= limits.budget


@settings(max_examples=40, deadline=None)
@given(BATCH, LIMITS)
def test_no_part_ends_before_it_has_to(data: list[Datum], limits: ChunkLimits) -> None:
    for part, following in itertools.pairwise(split(data, limits)):
        too_big = sum(map(limits.cost, [*part, following[0]])) > limits.budget
        assert len(part) == limits.max_datums or too_big


@pytest.mark.parametrize(
    "limits,num_datums,num_tokens,expected",
    [
        (ChunkLimits(), 2600, 1, [1024, 1024, 552]),
        (ChunkLimits(), 3, 1_000_000, [1, 1, 1]),
        (ChunkLimits(), 3, 625_000, [2, 1]),
        (ChunkLimits.JSON_ONLY, 300, 1, [128, 128, 44]),
        (ChunkLimits.JSON_ONLY, 3, 250_000, [2, 1]),
        (ChunkLimits.JSON_ONLY, 3, 500_001, [1, 1, 1]),
    ],
)
def test_upstreams_limits_give_upstreams_parts(
    limits: ChunkLimits, num_datums: int, num_tokens: int, expected: list[int]
) -> None:
    datum = Datum(ModelInput.from_ints(np.zeros(num_tokens, dtype=np.int32)))
    assert expected == [len(part) for part in split([datum] * num_datums, limits)]


@pytest.mark.parametrize(
    "key,expected",
    [
        ("loss:sum", {"loss:sum": 6.0}),
        ("loss:mean", {"loss:mean": 2.625}),
        ("loss:min", {"loss:min": 1.0}),
        ("loss:max", {"loss:max": 3.0}),
        ("loss:slack", {"loss:slack": 0.375}),
        ("loss:unique", {"loss:unique": 1.0, "loss:unique_1": 2.0, "loss:unique_2": 3.0}),
        ("loss:hash2", {"loss:hash2": 6}),
        ("loss:hash_unordered", {"loss:hash_unordered": hash((1, 2, 3))}),
        ("loss:median", {}),
        ("loss:", {}),
    ],
)
def test_a_metric_is_joined_by_its_suffix(key: str, expected: dict[str, float]) -> None:
    parts = [{key: 1.0}, {key: 2.0}, {key: 3.0}]
    assert expected == join_metrics(parts, [1, 1, 6])


def test_hashes_wrap_at_64_bits_and_lose_nothing() -> None:
    def joined(*values: float) -> float:
        return join_metrics([{"x:hash2": value} for value in values], [1] * len(values))["x:hash2"]

    assert 2**11 == joined(2.0**64 - 2**11, 2.0**12)
    assert 2**60 + 1 == joined(2.0**60, 1.0)
    assert 2**64 - 3 == joined(-3.0)


@settings(max_examples=30, deadline=None)
@given(st.permutations([3.0, -1.0, 7.0]))
def test_the_older_hash_does_not_know_the_order(values: list[float]) -> None:
    parts = [{"x:hash_unordered": value} for value in values]
    assert {"x:hash_unordered": hash((-1, 3, 7))} == join_metrics(parts, [1, 1, 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("suffix", ["hash2", "hash_unordered"])
def test_a_hash_is_a_number(suffix: str, value: float) -> None:
    with pytest.raises(WireFormatError, match=f"metrics.x:{suffix}: a hash is an integer"):
        join_metrics([{f"x:{suffix}": value}], [1])


@pytest.mark.parametrize("suffix", ["sum", "min", "max", "mean", "slack"])
@pytest.mark.parametrize("values", [[1.0, float("nan")], [float("nan"), 1.0]])
def test_what_is_no_number_shows(suffix: str, values: list[float]) -> None:
    joined = join_metrics([{f"x:{suffix}": value} for value in values], [1, 1])
    assert np.isnan(joined[f"x:{suffix}"])


def by_datum(values: list[float], counts: list[int]) -> list[float]:
    return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]


SLOW: dict[str, Callable[[list[float], list[int]], float]] = {
    "sum": lambda values, _: math.fsum(values),
    "min": lambda values, _: min(values),
    "max": lambda values, _: max(values),
    "mean": lambda values, counts: statistics.fmean(by_datum(values, counts)),
    "slack": lambda values, counts: max(values) - statistics.fmean(by_datum(values, counts)),
}
"""Each datum of a part counts with the part's value."""


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(SLOW)),
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 5)), min_size=1, max_size=6),
)
def test_metrics_are_joined_as_a_slow_reference_does(
    suffix: str, parts: list[tuple[float, int]]
) -> None:
    values, counts = [value for value, _ in parts], [count for _, count in parts]
    joined = join_metrics([{f"x:{suffix}": value} for value in values], counts)
    assert pytest.approx(SLOW[suffix](values, counts), abs=1e-6) == joined[f"x:{suffix}"]


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


def test_nothing_joined_is_an_empty_result() -> None:
    assert ForwardBackwardOutput("", [], {}) == join([], [])
