from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tinker_ray import errors
from tinker_ray.types import (
    RetryConfig,
    SampledSequence,
    SampleResponse,
    SamplingParams,
    TopkLogprobs,
)


def test_sampling_has_the_defaults_of_the_contract() -> None:
    assert {
        "max_tokens": None,
        "seed": None,
        "stop": None,
        "temperature": 1.0,
        "top_k": -1,
        "top_p": 1.0,
    } == SamplingParams().model_dump()


@pytest.mark.parametrize("stop", ["x", ["x", "y"], [1, 2], [], None])
def test_stop_is_a_text_texts_or_token_ids(stop: str | list[str] | list[int] | None) -> None:
    assert stop == SamplingParams(stop=stop).stop


@pytest.mark.parametrize(
    "field,value",
    [
        ("max_tokens", -1),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 1.1),
        ("top_p", float("nan")),
        ("seed", "x"),
        ("stop", 5),
    ],
)
def test_sampling_refuses_what_cannot_work(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        SamplingParams.model_validate({field: value})


def test_a_sampled_sequence_has_list_views() -> None:
    sequence = SampledSequence(
        "stop", "", np.array([1, 2], dtype=np.int32), np.array([-0.5, -1.0], dtype=np.float32)
    )
    assert ([1, 2], [-0.5, -1.0]) == (sequence.tokens, sequence.logprobs)
    assert SampledSequence("stop", "", np.array([1], dtype=np.int32)).logprobs is None


def test_a_sampled_sequence_may_be_made_of_lists() -> None:
    sequence = SampledSequence(
        stop_reason="length",
        tokens=[1, 2],
        logprobs=[-0.5, -1.0],
        topk_logprobs=[[(1, -0.5)], None],
    )
    assert ([1, 2], [-0.5, -1.0]) == (sequence.tokens, sequence.logprobs)
    assert ("int32", "float32") == (
        str(sequence.tokens_np.dtype),
        str(None if sequence.logprobs_np is None else sequence.logprobs_np.dtype),
    )
    assert [[(1, -0.5)], None] == sequence.topk_logprobs
    assert ([], None, "") == (
        SampledSequence("stop").tokens,
        SampledSequence("stop").topk_logprobs,
        SampledSequence("stop").sequence_id,
    )


def test_a_response_may_be_made_of_lists() -> None:
    response = SampleResponse([], prompt_logprobs=[None, -1.5], topk_prompt_logprobs=[None, []])
    assert [None, -1.5] == response.prompt_logprobs
    assert [] == response.topk_prompt_logprobs
    assert "sample" == response.type


def test_missing_prompt_logprobs_are_none_in_lists() -> None:
    response = SampleResponse([], np.array([np.nan, -1.5], dtype=np.float32))
    assert [None, -1.5] == response.prompt_logprobs
    assert (None, None) == (
        SampleResponse([]).prompt_logprobs,
        SampleResponse([]).topk_prompt_logprobs,
    )


def test_empty_cells_of_top_k_are_left_out_and_empty_rows_are_none() -> None:
    topk = TopkLogprobs(
        np.array([[0, 0], [5, 6], [9, 0]], dtype=np.int32),
        np.array([[-99999.0, -99999.0], [-0.5, -2.0], [-0.25, -99999.0]], dtype=np.float32),
    )
    expected = [None, [(5, -0.5), (6, -2.0)], [(9, -0.25)]]
    assert expected == topk.to_lists()
    assert expected == SampleResponse([], topk_prompt_logprobs_np=topk).topk_prompt_logprobs


def test_only_empty_cells_at_the_end_are_left_out() -> None:
    topk = TopkLogprobs(
        np.array([[5, 0, 7, 0]], dtype=np.int32),
        np.array([[-0.5, -99999.0, -2.0, -99999.0]], dtype=np.float32),
    )
    assert [[(5, -0.5), (0, -99999.0), (7, -2.0)]] == topk.to_lists()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_no_cells_are_no_positions(shape: tuple[int, int]) -> None:
    topk = TopkLogprobs(np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.float32))
    assert [] == topk.to_lists()


ROWS = st.lists(
    st.none()
    | st.lists(
        st.tuples(st.integers(0, 2**31 - 1), st.floats(-50, 0, width=32)), min_size=1, max_size=4
    ),
    max_size=5,
)


@settings(max_examples=25, deadline=None)
@given(ROWS)
def test_rows_of_pairs_come_back(rows: list[list[tuple[int, float]] | None]) -> None:
    expected = rows if any(rows) else []
    assert expected == TopkLogprobs.from_lists(rows).to_lists()


def test_a_retry_config_has_upstreams_bound() -> None:
    assert (1000, True) == (RetryConfig().max_connections, RetryConfig().enable_stuck_detection)
    assert RetryConfig().max_connections != RetryConfig(max_connections=None).max_connections


def test_lost_connections_and_promises_are_repeated() -> None:
    expected = (TimeoutError, errors.APIConnectionError, errors.RetryableError)
    assert expected == RetryConfig().retryable_exceptions


def test_equal_retry_configs_share_what_is_kept_by_them() -> None:
    assert {RetryConfig(): "kept"}[RetryConfig()] == "kept"
    changed = RetryConfig()
    changed.progress_timeout = 1.0
    assert changed != RetryConfig()


@pytest.mark.parametrize("bound", [0, -1])
def test_a_bound_that_nothing_passes_is_refused(bound: int) -> None:
    with pytest.raises(ValueError, match=str(bound)):
        RetryConfig(max_connections=bound)


def test_delays_stay_bounded_after_any_number_of_attempts() -> None:
    assert 10.0 == RetryConfig().delay_s(10_000, 0.5)


@pytest.mark.parametrize(
    "attempt,chance,expected_s",
    [(0, 0.5, 0.5), (0, 0.0, 0.375), (1, 0.5, 1.0), (4, 0.5, 8.0), (5, 0.5, 10.0), (9, 0.99, 10.0)],
)
def test_retry_delays_double_up_to_the_maximum_give_or_take_a_quarter(
    attempt: int, chance: float, expected_s: float
) -> None:
    assert pytest.approx(expected_s) == RetryConfig().delay_s(attempt, chance)
