from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from tinker_ray.rl.measure import kl_sample_train, measure
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.transcript import first_of_each, render
from tinker_ray.rollouts import Metrics, TokensWithLogprobs, Trajectory, TrajectoryGroup, Transition
from tinker_ray.types import Datum, ForwardBackwardOutput, ModelInput, TensorData


def turn(
    action: list[int], reward: float, metrics: Metrics | None = None, logprob: float = -0.5
) -> Transition:
    return Transition(
        ModelInput.from_ints([7]),
        TokensWithLogprobs(action, [logprob] * len(action)),
        reward,
        episode_done=True,
        metrics=metrics or {},
    )


def group(*trajectories: list[Transition]) -> TrajectoryGroup:
    ended = [Trajectory(turns, ModelInput.empty()) for turns in trajectories]
    return TrajectoryGroup(ended, [0.0] * len(ended), [{}] * len(ended))


def decode(tokens: object) -> str:
    return str(tokens)


def test_means_are_over_episodes_and_tokens() -> None:
    measured = measure(
        [group([turn([1, 2, 3], 1.0, logprob=-1.0)]), group([turn([4], 0.0, logprob=-3.0)] * 1)]
    )
    assert (measured.reward, measured.accuracy, measured.entropy) == (0.5, 0.5, 1.5)
    assert (measured.num_episodes, measured.num_tokens) == (2, 4)


def test_an_environment_may_say_itself_what_counts_as_solved() -> None:
    measured = measure([group([turn([1], 0.1, {"correct": 0})], [turn([1], 0.0, {"correct": 1})])])
    assert measured.accuracy == 0.5
    assert measured.reward == pytest.approx(0.05)


def test_a_problem_solved_at_any_turn_is_solved() -> None:
    turns = [turn([1], 0.0, {"correct": 1}), turn([2], 0.0, {"correct": 0})]
    assert measure([group(turns)]).accuracy == 1.0


def test_nothing_measures_as_zero() -> None:
    assert measure([]).reward == 0.0


def test_kl_counts_sampled_tokens_only() -> None:
    datum = Datum(
        ModelInput.from_ints([1, 2, 3]),
        {
            "logprobs": TensorData([0.0, -1.0, -2.0], "float32"),
            "advantages": TensorData([0.0, 0.5, 0.5], "float32"),
        },
    )
    trained = TensorData.from_numpy(np.asarray([-9.0, -1.5, -2.5], dtype=np.float32))
    output = ForwardBackwardOutput("x", [{"logprobs": trained}], {})
    assert kl_sample_train([datum], output) == pytest.approx(0.5)


def test_a_transcript_shows_every_turn_with_its_reward() -> None:
    text = render("t", [group([turn([1], 1.0)], [turn([1], 0.0), turn([2], 0.5)])], decode)
    assert text.splitlines() == [
        "# t",
        "",
        "## group 0: 2 episodes, mean reward 0.75",
        " 1.00  '[7]' -> '[1]'",
        " 0.50  in 2 turns",
        "        0.00  '[7]' -> '[1]'",
        "        0.50  '[7]' -> '[2]'",
    ]


def test_without_a_terminal_progress_is_plain_lines() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=40, highlight=False, soft_wrap=True)) as progress:
        progress.status("never shown")
        progress.say(
            "a [bold]line[/bold] with brackets, longer than the forty columns of the console"
        )
        progress.excerpts("some:", first_of_each([group([turn([1], 1.0)])], decode, 3))
    assert out.getvalue().splitlines() == [
        "a [bold]line[/bold] with brackets, longer than the forty columns of the console",
        "some:",
        "   1.00  '[7]' -> '[1]'",
    ]
