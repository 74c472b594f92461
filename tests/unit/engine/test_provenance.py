from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tinker_ray.engine.training.batch import TrainingBatch, prepare_batch
from tinker_ray.engine.training.datum_check import Limits
from tinker_ray.engine.training.recorded_samples import RecordedSample, RecordedSamples
from tinker_ray.errors import EngineError
from tinker_ray.types import (
    Datum,
    ModelInput,
    PromptProvenanceSpan,
    SampledProvenanceSpan,
    TensorData,
)

PROMPT = [5, 6, 7]
DRAWN = [20, 21, 22, 23]


def prompt(length: int, offset: int = 0, name: str = "q") -> PromptProvenanceSpan:
    return PromptProvenanceSpan(sequence_id=name, offset=offset, length=length)


def drawn(length: int, offset: int = 0, name: str = "q") -> SampledProvenanceSpan:
    return SampledProvenanceSpan(sequence_id=name, offset=offset, length=length)


def recorded() -> RecordedSamples:
    samples = RecordedSamples()
    for name, first in (("q", PROMPT), ("r", [*PROMPT, *DRAWN, 9])):
        sample = RecordedSample(
            np.array(first, np.int32),
            np.array(DRAWN, np.int32),
            np.array([-0.1, -0.2, -0.3, -0.4], np.float32),
        )
        samples.add("s", name, sample)
    return samples


def datum(
    tokens: Sequence[int],
    inputs: Sequence[Any] | None,
    targets: Sequence[Any] | None,
    advantages: Sequence[float] | None = None,
) -> Datum:
    """Make a datum of ``tokens``, each but the first a target, with the runs of both."""
    given = [0.0] * (len(tokens) - 1) if advantages is None else list(advantages)
    made = Datum(
        ModelInput.from_ints(list(tokens[:-1])),
        {"target_tokens": list(tokens[1:]), "advantages": given},
    )
    if inputs is None or targets is None:
        return made
    return dataclasses.replace(
        made, model_input_spans=list(inputs), loss_fn_input_spans=list(targets)
    )


def prepare(*data: Datum, loss_fn: str = "stable_reinforce") -> TrainingBatch:
    samples = recorded()
    return prepare_batch(
        data,
        loss_fn,
        None,
        Limits(100, 64),
        backward=True,
        find_sample=lambda name: samples.find("s", name),
    )


def test_drawn_targets_get_the_logprobs_that_they_were_drawn_with() -> None:
    one_turn = datum(
        [*PROMPT, *DRAWN], [prompt(3), drawn(3)], [prompt(2, 1), drawn(4)], [0, 0, 1, 1, -1, 0.5]
    )
    (row,) = prepare(one_turn).rows
    assert [0, 0, 1, 1, 1, 1] == row.inputs["sampled"].tolist()
    np.testing.assert_allclose(row.inputs["logprobs"], [0, 0, -0.1, -0.2, -0.3, -0.4])


def test_turns_may_name_several_samples() -> None:
    tokens = [*PROMPT, *DRAWN, 9, *DRAWN]
    two_turns = datum(
        tokens,
        [prompt(3), drawn(4), prompt(1, 7, "r"), drawn(3, name="r")],
        [prompt(2, 1), drawn(4), prompt(0), prompt(1, 7, "r"), drawn(2, 0, "r"), drawn(2, 2, "r")],
    )
    (row,) = prepare(two_turns).rows
    assert [0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1] == row.inputs["sampled"].tolist()
    np.testing.assert_allclose(row.inputs["logprobs"][7:], [-0.1, -0.2, -0.3, -0.4])


GOOD = ([prompt(3), drawn(3)], [prompt(2, 1), drawn(4)])
TOKENS = [*PROMPT, *DRAWN]


@pytest.mark.parametrize(
    "wrong, problem",
    [
        (datum(TOKENS, None, None), "data[1] has no provenance"),
        (
            datum(TOKENS, [prompt(3), drawn(3, name="x")], GOOD[1]),
            "data[1].model_input_spans[1]: sequence 'x' is not recorded",
        ),
        (
            datum(TOKENS, GOOD[0], [prompt(2), drawn(4)]),
            "data[1].loss_fn_input_spans[0] names other tokens than the datum has from 0 on",
        ),
        (
            datum(TOKENS, GOOD[0], [prompt(2, 1), drawn(3), drawn(1, 2)]),
            "data[1].loss_fn_input_spans[2] names other tokens than the datum has from 5 on",
        ),
        (
            datum(TOKENS, [prompt(3), drawn(3, 2)], GOOD[1]),
            "data[1].model_input_spans[1] ends at 5, but the sample has 4 drawn tokens",
        ),
        (
            datum([*PROMPT, 1], [prompt(3)], [prompt(3, 1)]),
            "data[1].loss_fn_input_spans[0] ends at 4, but the sample has 3 prompt tokens",
        ),
        (
            datum(TOKENS, *GOOD, advantages=[0, 1, 1, 1, 1, 1]),
            "data[1].loss_fn_inputs['advantages'] is not 0 at 1, where the target was not sampled",
        ),
    ],
)
def test_provenance_that_is_not_true_is_refused(wrong: Datum, problem: str) -> None:
    with pytest.raises(EngineError) as raised:
        prepare(datum(TOKENS, *GOOD), wrong)
    assert problem in raised.value.message
    assert "user" == raised.value.category


def test_losses_that_do_not_read_provenance_do_not_look_at_it() -> None:
    other = datum(TOKENS, [prompt(6, name="gone")], [drawn(6, name="gone")])
    inputs = {**other.loss_fn_inputs, "weights": TensorData([1.0] * 6, "float32")}
    plain = dataclasses.replace(other, loss_fn_inputs=inputs)
    (row,) = prepare(plain, loss_fn="cross_entropy").rows
    assert {"weights"} == set(row.inputs)
