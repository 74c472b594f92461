from __future__ import annotations

import pytest

from tinker_ray.rollouts import TokensWithLogprobs, Trajectory, TrajectoryGroup, Transition, center
from tinker_ray.rollouts.datum import from_groups, from_trajectory
from tinker_ray.types import Datum, ModelInput


def turn(observation: list[int], action: list[int], reward: float = 0.0) -> Transition:
    logprobs = [-0.25 * token for token in action]
    return Transition(
        ModelInput.from_ints(observation),
        TokensWithLogprobs(action, logprobs),
        reward,
        episode_done=True,
    )


def trajectory(*turns: Transition) -> Trajectory:
    return Trajectory(list(turns), ModelInput.empty())


def columns(datum: Datum) -> dict[str, list[float]]:
    return {"input": datum.model_input.to_ints()} | {
        key: tensor.data for key, tensor in datum.loss_fn_inputs.items()
    }


def test_a_single_turn_is_shifted_by_one_with_zeros_on_the_prompt() -> None:
    [datum] = from_trajectory(trajectory(turn([1, 2, 3], [4, 8])), 0.5)
    assert columns(datum) == {
        "input": [1, 2, 3, 4],
        "target_tokens": [2, 3, 4, 8],
        "logprobs": [0.0, 0.0, -1.0, -2.0],
        "advantages": [0.0, 0.0, 0.5, 0.5],
    }


def test_turns_that_extend_one_another_become_one_datum() -> None:
    [datum] = from_trajectory(trajectory(turn([1, 2], [4]), turn([1, 2, 4, 9], [8])), -1.0)
    assert columns(datum) == {
        "input": [1, 2, 4, 9],
        "target_tokens": [2, 4, 9, 8],
        "logprobs": [0.0, -1.0, 0.0, -2.0],
        "advantages": [0.0, -1.0, 0.0, -1.0],
    }


def test_a_rewritten_history_begins_a_new_datum() -> None:
    data = from_trajectory(trajectory(turn([1, 2], [4]), turn([7, 2], [8])), 1.0)
    assert [columns(datum)["input"] for datum in data] == [[1, 2], [7, 2]]
    assert [columns(datum)["target_tokens"] for datum in data] == [[2, 4], [2, 8]]


def test_dtypes_and_shapes_are_those_of_the_wire() -> None:
    [datum] = from_trajectory(trajectory(turn([1], [4])), 1.0)
    assert {key: (t.dtype, t.shape) for key, t in datum.loss_fn_inputs.items()} == {
        "target_tokens": ("int64", [1]),
        "logprobs": ("float32", [1]),
        "advantages": ("float32", [1]),
    }


def test_an_episode_without_sampled_tokens_gives_no_datum() -> None:
    assert from_trajectory(trajectory(turn([1, 2], [])), 1.0) == []


def test_missing_logprobs_are_an_error() -> None:
    silent = Transition(
        ModelInput.from_ints([1]), TokensWithLogprobs([2], None), 0.0, episode_done=True
    )
    with pytest.raises(ValueError, match="logprobs are not available"):
        from_trajectory(trajectory(silent), 1.0)


def group(*rewards: float) -> TrajectoryGroup:
    trajectories = [trajectory(turn([1], [4], reward)) for reward in rewards]
    return TrajectoryGroup(trajectories, [0.0] * len(rewards), [{}] * len(rewards))


def test_advantages_are_centred_in_each_group() -> None:
    advantages = center([group(1.0, 0.0, 0.0, 1.0), group(3.0, 0.0, 0.0)])
    assert advantages.advantages_P_G == [[0.5, -0.5, -0.5, 0.5], [2.0, -1.0, -1.0]]
    assert advantages.num_constant_groups == 0


def test_groups_of_constant_reward_have_no_advantage_and_are_counted() -> None:
    advantages = center([group(1.0, 1.0), group(0.1, 0.1, 0.1), group(0.0, 1.0), group()])
    assert advantages.advantages_P_G == [[0.0, 0.0], [0.0, 0.0, 0.0], [-0.5, 0.5], []]
    assert advantages.num_constant_groups == 3


def test_a_batch_leaves_out_what_has_no_advantage_unless_asked_to_keep_it() -> None:
    groups = [group(1.0, 1.0), group(0.0, 1.0)]
    assert len(from_groups(groups, center(groups))) == 2
    assert len(from_groups(groups, center(groups), keep_zero=True)) == 4
