from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tinker_ray.core.sample_check import check_request, check_response
from tinker_ray.errors import UnfulfilledError
from tinker_ray.types import ModelInput, PromptAltTokens, SampleResponse, TensorData
from tinker_ray.wire.request import SampleRequest

REQUEST = SampleRequest(ModelInput.from_ints([1, 2, 3, 4]))
TARGETS = TensorData([1, 2, 3], "int64", [3, 1])
NAN = float("nan")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target_prompt_logprobs": TARGETS},
        {"prompt_alt_tokens_k": 0},
        {"prompt_alt_tokens_k": 3},
        {"prompt_logprobs": True, "prompt_logprobs_last_n": 1},
    ],
)
def test_what_can_be_may_be_asked_for(changes: dict[str, Any]) -> None:
    check_request(replace(REQUEST, **changes))


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"num_samples": 0}, "num_samples must be 1 or more, got 0"),
        ({"target_prompt_logprobs": TensorData([1.0], "float32", [1, 1])}, "int64"),
        ({"target_prompt_logprobs": TensorData([1, 2], "int64", [2])}, r"got \[2\]"),
        ({"prompt_alt_tokens_k": -1}, "prompt_alt_tokens_k must be 0 or more, got -1"),
        (
            {"prompt_logprobs": True, "prompt_logprobs_last_n": 0},
            "prompt_logprobs_last_n must be 1 or more, got 0",
        ),
        ({"prompt_logprobs_last_n": 2}, "include_prompt_logprobs=True"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_request(replace(REQUEST, **changes))


def response(logprobs: list[float] | None = None, *, alternatives: bool = False) -> SampleResponse:
    drawn = PromptAltTokens(
        TensorData([1, 2, 3], "int64", [3, 1]), TensorData([-1.0, -1.0, -1.0], "float32", [3, 1])
    )
    return SampleResponse(
        [],
        None if logprobs is None else np.array(logprobs, dtype=np.float32),
        prompt_alt_tokens=drawn if alternatives else None,
    )


@pytest.mark.parametrize(
    "changes,answered",
    [
        ({}, response()),
        ({"prompt_alt_tokens_k": 1}, response(alternatives=True)),
        ({"prompt_logprobs_last_n": 2}, response([NAN, NAN, -1.0, -2.0])),
        ({"prompt_logprobs_last_n": 9}, response([-1.0, -2.0])),
        ({"prompt_logprobs_last_n": 2}, response()),
    ],
)
def test_an_answer_with_what_was_asked_for_passes(
    changes: dict[str, Any], answered: SampleResponse
) -> None:
    check_response(replace(REQUEST, **changes), answered)


@pytest.mark.parametrize(
    "changes,answered,words",
    [
        ({"prompt_alt_tokens_k": 2}, response(), "prompt_alt_tokens_k=2"),
        ({"prompt_logprobs_last_n": 1}, response([NAN, -1.0, -2.0]), "prompt_logprobs_last_n=1"),
    ],
)
def test_an_answer_without_it_is_an_error_that_upstream_would_raise_too(
    changes: dict[str, Any], answered: SampleResponse, words: str
) -> None:
    with pytest.raises(RuntimeError, match=words) as caught:
        check_response(replace(REQUEST, **changes), answered)
    assert isinstance(caught.value, UnfulfilledError)
