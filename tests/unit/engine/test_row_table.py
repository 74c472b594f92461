from __future__ import annotations

from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_ray.engine.sampling.row_table import EndRules, RowTable
from tinker_ray.engine.sampling.sequence import Job, SampleJob, Sequence, StopRule
from tinker_ray.types import SamplingParams

VOCAB = 50


def make_sequence(
    seed: int, *, limit: int = 300, stop: StopRule | None = None, drawn: int = 1
) -> Sequence:
    rng = np.random.default_rng(seed)
    params = SamplingParams(temperature=seed % 3, top_k=seed % 5 or -1, top_p=1 / (1 + seed % 2))
    request = SampleJob(np.arange(3 + seed % 7), None, params, topk_sample_logprobs=seed % 4)
    job = Job(request, Future(), stop or StopRule(tuple(range(seed % 4))), limit)
    tokens = rng.integers(0, VOCAB, drawn).tolist()
    return Sequence(job, rng.random(limit), tokens, [0.0] * drawn)


def step(table: RowTable, seed: int) -> list[int]:
    """Draw a token for every row."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, VOCAB, len(table))
    for sequence, token in zip(table.sequences, tokens.tolist(), strict=True):
        sequence.tokens.append(token)
    return table.step(tokens, np.zeros(len(table), np.float32))


def content(table: RowTable) -> list[tuple[object, ...]]:
    columns = (table.positions, table.newest, *table.draws)
    numbers = (column.tolist() for column in (*columns, table.uniforms()))
    return list(zip(*numbers, strict=True))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_table_that_rows_come_to_and_leave_is_that_of_its_sequences(data: st.DataObject) -> None:
    table = RowTable([])
    for number in range(data.draw(st.integers(1, 6))):
        kept = data.draw(st.permutations(range(len(table))))
        kept = kept[: data.draw(st.integers(0, len(kept)))]
        newcomers = data.draw(st.integers(0, 4))
        order = data.draw(st.permutations([*kept, *(-1 - index for index in range(newcomers))]))
        new = {index: make_sequence(100 * number - index) for index in range(-newcomers, 0)}
        sequences = [table.sequences[row] if row >= 0 else new[row] for row in order]
        table = table.arranged(list(order), sequences)
        for index in range(data.draw(st.integers(0, 40))):
            assert content(RowTable(sequences)) == content(table)
            expected = EndRules(sequences)
            tokens = np.random.default_rng(index).integers(0, VOCAB, len(sequences))
            watched = expected.step(tokens, np.zeros(len(sequences), np.float32))
            assert watched == step(table, index)


@pytest.mark.parametrize(
    "sequence, token, logprob, expected",
    [
        (make_sequence(0), 7, -1.0, []),
        (make_sequence(0, stop=StopRule((3, 7))), 7, -1.0, [1]),
        (make_sequence(0, stop=StopRule((3, 7))), 8, -1.0, []),
        (make_sequence(0, limit=2), 7, -1.0, [1]),
        (make_sequence(0, limit=3), 7, -1.0, []),
        (make_sequence(0, stop=StopRule((), strings=("x",))), 7, -1.0, [1]),
        (make_sequence(0), 7, float("nan"), [1]),
        (make_sequence(0), 7, float("-inf"), [1]),
    ],
)
def test_rows_that_may_end_are_watched(
    sequence: Sequence, token: int, logprob: float, expected: list[int]
) -> None:
    rules = EndRules([make_sequence(4), sequence])
    watched = rules.step(np.array([9, token]), np.array([-1.0, logprob], np.float32))
    assert expected == watched


def test_a_limit_is_reached_after_as_many_steps_wherever_the_row_moves() -> None:
    table = RowTable([make_sequence(0), make_sequence(4, limit=5)])
    assert [[], []] == [step(table, seed) for seed in range(2)]
    table = table.arranged([1, -1, 0], [table.sequences[1], make_sequence(8), table.sequences[0]])
    assert [[], [0]] == [step(table, seed) for seed in range(2)]
