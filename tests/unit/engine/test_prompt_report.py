from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tinker_ray.engine.sampling.prompt_report import PromptReport, check_report, report_prompt
from tinker_ray.engine.sampling.sequence import SampleJob
from tinker_ray.errors import EngineError
from tinker_ray.types import SamplingParams, TensorData

VOCAB = 11
PROMPT = np.array([3, 1, 4, 1, 5, 9, 2, 6])
LOGITS = torch.from_numpy(
    np.random.default_rng(0).normal(0, 2, (len(PROMPT) - 1, VOCAB)).astype(np.float32)
)
TABLE: npt.NDArray[np.float32] = torch.log_softmax(LOGITS, -1).numpy()


class Scores:
    """A table of logits that remembers which rows were asked for."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, start: int, stop: int) -> torch.Tensor:
        self.rows += range(start, stop)
        return LOGITS[start:stop]


def job(**asked: Any) -> SampleJob:  # noqa: ANN401
    params = asked.pop("params", SamplingParams())
    request = SampleJob(PROMPT, None, params, **asked)
    check_report(request, VOCAB)
    return request


def report(
    request: SampleJob,
    uniforms: npt.NDArray[np.float64] | None = None,
    scores: Scores | None = None,
    rows_at_once: int = 3,
) -> PromptReport:
    return report_prompt(request, scores or Scores(), uniforms, rows_at_once=rows_at_once)


def csr(array: npt.NDArray[np.int64]) -> TensorData:
    """List everything but -1."""
    rows, columns = np.nonzero(array != -1)
    crow = np.searchsorted(rows, np.arange(len(array) + 1)).tolist()
    return TensorData(array[rows, columns], "int64", array.shape, crow, columns.tolist())


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
def test_each_token_but_the_first_has_the_logprob_of_the_row_before_it(rows_at_once: int) -> None:
    told = report(job(prompt_logprobs=True), rows_at_once=rows_at_once).logprobs
    assert told is not None
    assert np.isnan(told[0])
    expected = TABLE[np.arange(len(PROMPT) - 1), PROMPT[1:]]
    np.testing.assert_array_equal(expected, told[1:])


@pytest.mark.parametrize("last_n", [1, 3, len(PROMPT) - 1])
def test_only_the_last_tokens_are_scored_if_no_more_are_asked_for(last_n: int) -> None:
    scores = Scores()
    request = job(prompt_logprobs=True, topk_prompt_logprobs=2, prompt_logprobs_last_n=last_n)
    told = report(request, scores=scores)
    full = report(job(prompt_logprobs=True, topk_prompt_logprobs=2))
    assert list(range(len(PROMPT) - 1 - last_n, len(PROMPT) - 1)) == scores.rows
    assert told.logprobs is not None
    assert full.logprobs is not None
    assert np.isnan(told.logprobs[:-last_n]).all()
    np.testing.assert_array_equal(full.logprobs[-last_n:], told.logprobs[-last_n:])
    assert told.topk is not None
    assert full.topk is not None
    assert [None] * (len(PROMPT) - last_n) == told.topk.to_lists()[:-last_n]
    assert full.topk.to_lists()[-last_n:] == told.topk.to_lists()[-last_n:]


def test_the_likeliest_tokens_come_in_order() -> None:
    told = report(job(topk_prompt_logprobs=3))
    assert told.logprobs is None
    assert told.topk is not None
    expected = np.argsort(-TABLE, axis=1)[:, :3]
    np.testing.assert_array_equal(expected, told.topk.token_ids[1:])
    assert told.topk.to_lists()[0] is None


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("rows_at_once", [1, 2, 100])
def test_named_tokens_are_scored_in_the_layout_that_they_come_in(
    layout: str, rows_at_once: int
) -> None:
    ids = np.full((len(PROMPT) - 1, 3), -1)
    ids[2] = (0, 10, 4)
    ids[5, 1] = 7
    ids[6] = (1, -1, 1)
    asked = TensorData.from_numpy(ids) if layout == "dense" else csr(ids)
    scores = Scores()
    told = report(job(target_prompt_logprobs=asked), scores=scores, rows_at_once=rows_at_once)
    assert told.targets is not None
    assert 2 == scores.rows[0]
    assert asked.shape == told.targets.shape
    assert asked.is_sparse == told.targets.is_sparse
    expected = np.where(ids < 0, 0, np.take_along_axis(TABLE, np.maximum(ids, 0), 1))
    np.testing.assert_array_equal(expected.astype(np.float32), told.targets.to_numpy())
    assert "float32" == told.targets.dtype


def test_listed_cells_may_be_skipped_as_well() -> None:
    crow = [0, 2, *[2] * (len(PROMPT) - 2)]
    asked = TensorData([-1, 4], "int64", [len(PROMPT) - 1, 5], crow, [0, 3])
    told = report(job(target_prompt_logprobs=asked)).targets
    assert told is not None
    assert [0.0, float(TABLE[0, 4])] == told.values.tolist()


def test_alternatives_are_drawn_from_every_row_whatever_else_is_asked() -> None:
    uniforms = np.random.default_rng(1).random((len(PROMPT) - 1, 4))
    request = job(prompt_alt_tokens_k=4, prompt_logprobs=True, prompt_logprobs_last_n=1)
    told = [report(request, uniforms, rows_at_once=rows).alternatives for rows in (1, 3, 100)]
    assert told[0] is not None
    assert told[0] == told[1] == told[2]
    tokens, logprobs = told[0].tokens.to_numpy(), told[0].logprobs.to_numpy()
    np.testing.assert_array_equal(np.take_along_axis(TABLE, tokens, 1), logprobs)
    cumulative = np.exp(TABLE.astype(np.float64)).cumsum(axis=1)
    for row in range(len(PROMPT) - 1):
        expected = np.searchsorted(cumulative[row] / cumulative[row, -1], uniforms[row], "right")
        np.testing.assert_array_equal(expected, tokens[row])


def test_alternatives_follow_the_temperature_and_their_logprobs_do_not() -> None:
    uniforms = np.random.default_rng(1).random((len(PROMPT) - 1, 4))
    request = job(prompt_alt_tokens_k=4, params=SamplingParams(temperature=0))
    told = report(request, uniforms).alternatives
    assert told is not None
    np.testing.assert_array_equal(np.repeat(TABLE.argmax(1)[:, None], 4, 1), told.tokens.to_numpy())
    np.testing.assert_array_equal(np.repeat(TABLE.max(1)[:, None], 4, 1), told.logprobs.to_numpy())


def test_a_prompt_of_one_token_has_nothing_to_tell() -> None:
    request = SampleJob(PROMPT[:1], None, SamplingParams(), 1, True, 2, prompt_alt_tokens_k=3)  # noqa: FBT003
    check_report(request, VOCAB)
    scores = Scores()
    told = report(request, np.zeros((0, 3)), scores)
    assert [] == scores.rows
    assert told.logprobs is not None
    assert [True] == np.isnan(told.logprobs).tolist()
    assert told.alternatives is not None
    assert (0, 3) == told.alternatives.tokens.to_numpy().shape


def targets(*shape: int, value: int = 1, dtype: Any = np.int64) -> TensorData:  # noqa: ANN401
    return TensorData.from_numpy(np.full(shape, value, dtype))


@pytest.mark.parametrize(
    "asked, problem",
    [
        ({"topk_prompt_logprobs": -1}, "topk_prompt_logprobs: must be from 0 to 11"),
        ({"topk_prompt_logprobs": 12}, "topk_prompt_logprobs: must be from 0 to 11"),
        ({"prompt_alt_tokens_k": -1}, "prompt_alt_tokens_k: must be 0 or more"),
        ({"prompt_alt_tokens_k": 10**9}, "prompt_alt_tokens_k: asks for 7000000000 numbers"),
        ({"prompt_logprobs_last_n": 1}, "prompt_logprobs_last_n: needs prompt_logprobs"),
        ({"prompt_logprobs": True, "prompt_logprobs_last_n": 0}, "must be from 1 to 7"),
        ({"prompt_logprobs": True, "prompt_logprobs_last_n": 8}, "must be from 1 to 7"),
        ({"target_prompt_logprobs": targets(7, 1, dtype=np.float32)}, "is float32, expected int64"),
        ({"target_prompt_logprobs": targets(7)}, r"has shape \(7,\), expected \(7, K\)"),
        ({"target_prompt_logprobs": targets(8, 2)}, r"has shape \(8, 2\)"),
        ({"target_prompt_logprobs": targets(7, 2, value=-1)}, "names no token"),
        ({"target_prompt_logprobs": targets(7, 0)}, "names no token"),
        ({"target_prompt_logprobs": targets(7, 2, value=11)}, "has token 11: use -1, or ids"),
        ({"target_prompt_logprobs": targets(7, 2, value=-2)}, "has token -2: use -1, or ids"),
    ],
)
def test_what_cannot_be_told_is_refused_by_its_field(asked: dict[str, Any], problem: str) -> None:
    with pytest.raises(EngineError, match=problem) as raised:
        job(**asked)
    assert "user" == raised.value.category
