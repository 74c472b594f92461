from __future__ import annotations

from tinker_ray.rollouts import (
    RolloutError,
    Selection,
    TokensWithLogprobs,
    Trajectory,
    TrajectoryGroup,
    Transition,
)
from tinker_ray.types import ModelInput

NOTHING = ModelInput.from_ints([])


def group(*rewards: float, tokens: int = 2, turns: int = 1, failed: int = 0) -> TrajectoryGroup:
    turn = Transition(NOTHING, TokensWithLogprobs([1] * tokens, None), 0.0, episode_done=True)
    return TrajectoryGroup(
        [Trajectory([turn] * turns, NOTHING) for _ in rewards],
        list(rewards),
        [{} for _ in rewards],
        [RolloutError("timeout", "slow")] * failed,
    )


def test_lengths_and_rewards_of_what_was_cut_stand_beside_those_of_what_was_kept() -> None:
    selection = Selection()
    selection.deliver(group(0.0, 1.0, failed=1), 1.0)
    selection.deliver(group(1.0, 0.5), 2.0)
    selection.deliver(group(1.0, 1.0), 1.5)
    selection.cut("stale", group(0.0, 0.5, tokens=3, turns=2), 9.0)
    selection.cut("timeout", None, 30.0)
    account = selection.take()
    assert (account.kept.groups, account.kept.failed_episodes) == (2, 1)
    assert {
        "kept/groups": 2,
        "kept/reward": 0.625,
        "kept/tokens": 2.0,
        "kept/turns": 1.0,
        "kept/seconds": 1.5,
        "cut/constant/groups": 1,
        "cut/constant/reward": 1.0,
        "cut/constant/tokens": 2.0,
        "cut/constant/turns": 1.0,
        "cut/constant/seconds": 1.5,
        "cut/stale/groups": 1,
        "cut/stale/reward": 0.25,
        "cut/stale/tokens": 6.0,
        "cut/stale/turns": 2.0,
        "cut/stale/seconds": 9.0,
        "cut/timeout/groups": 1,
        "cut/timeout/seconds": 30.0,
    } == account.metrics()


def test_an_account_that_was_taken_begins_anew() -> None:
    selection = Selection()
    selection.deliver(group(0.0, 1.0), 1.0)
    selection.take()
    assert selection.take().metrics() == {"kept/groups": 0}
