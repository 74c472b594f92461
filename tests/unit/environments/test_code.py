from __future__ import annotations

import pytest

from tinker_ray.environments.code import CodeEnv, CodeProblem, program_of

DOUBLE = CodeProblem("Print twice the number.", (("2", "4\n"), ("5", "10")))


def test_a_wrong_program_hears_what_it_printed_and_may_be_tried_again() -> None:
    env = CodeEnv(DOUBLE)
    assert env.begin().startswith("Print twice the number.")
    first = env.respond("```python\nprint(4)\n```")
    assert ("Case 2: it printed '4', which is wrong", 0.0, False) == (
        first.text,
        first.reward,
        first.done,
    )
    assert 0.5 == first.metrics["solved"]
    second = env.respond("So:\n```\nprint(2 * int(input()))\n```")
    assert ("right", 1.0, True) == (second.text, second.reward, second.done)
    assert {"correct": 1.0, "attempts": 2, "solved": 1.0} == second.metrics


def test_the_last_attempt_ends_the_episode_and_errors_are_shown() -> None:
    turn = CodeEnv(DOUBLE, attempts=1).respond("raise KeyError('oh')")
    assert (0.0, True) == (turn.reward, turn.done)
    assert "KeyError: 'oh'" in turn.text


def test_a_program_that_leaves_early_does_not_pass() -> None:
    assert 0.0 == CodeEnv(DOUBLE, attempts=1).respond("import os; os._exit(0)").reward


def test_the_last_block_of_an_answer_is_its_program() -> None:
    assert "b\n" == program_of("```py\na\n```\nno:\n```python\nb\n```")
    assert "c" == program_of("c")


def test_a_problem_without_cases_is_refused() -> None:
    with pytest.raises(ValueError, match="no cases"):
        CodeProblem("Anything.", ())
