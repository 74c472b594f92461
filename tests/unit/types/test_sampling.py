from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

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


@pytest.mark.parametrize(
    "attempt,chance,expected_s",
    [(0, 0.5, 0.5), (0, 0.0, 0.375), (1, 0.5, 1.0), (4, 0.5, 8.0), (5, 0.5, 10.0), (9, 0.99, 10.0)],
)
def test_retry_delays_double_up_to_the_maximum_give_or_take_a_quarter(
    attempt: int, chance: float, expected_s: float
) -> None:
    assert pytest.approx(expected_s) == RetryConfig().delay_s(attempt, chance)
