"""The training actor makes the data of far groups; a client sends it where they are."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any, cast

import pytest

from actors.handles.training import TrainingHandle
from actors.training import TrainingActor
from tests.fakes.far import FakeStore, episode, group_of
from tests.fakes.remote_actor import FakeRemote
from tests.unit.actors.conftest import SERVICE
from tests.unit.actors.test_training import MODEL, Quiet, no_link
from tinker_ray.core.far_operation import FarForwardBackward, FarOutput, join_far
from tinker_ray.core.operation import OptimStep
from tinker_ray.rollouts import center
from tinker_ray.rollouts.datum import from_groups
from tinker_ray.rollouts.far_datum import Agreement, far_data, split_far
from tinker_ray.types import AdamParams
from tinker_ray.wire.chunking import ChunkLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.fakes.toy_service import ToyService
    from tinker_ray.core.link import Link
    from tinker_ray.core.operation import Operation
    from tinker_ray.rollouts import TrajectoryGroup

FIRST = group_of(episode(0.0, 1.0), episode(0.0))
SECOND = group_of(episode(2.0, prompt=[7] * 9), episode(0.0, 0.0))
LOG_RATIO = -0.25 * (1 + 2 + 3) + 3
"""Of one turn: the trainer's logprobs are -1 each."""
ANY_SIZE = ChunkLimits()
NUM_TOKENS = 2 * 3 + 3
"""Sampled ones of a group's two episodes; the first of an episode counts, as it has a prompt."""


@pytest.fixture
async def remote(open_link: Callable[[], Link]) -> AsyncIterator[FakeRemote]:
    made: list[TrainingActor] = []

    def make() -> TrainingActor:
        made.append(TrainingActor(SERVICE, MODEL, Quiet(), link=open_link()))
        return made[-1]

    yield FakeRemote(make)
    for actor in made:
        await actor.aclose()


async def trained(
    remote: FakeRemote, groups: list[TrajectoryGroup], limits: ChunkLimits = ANY_SIZE
) -> FarOutput:
    """Train on groups, and take a step."""
    actor: Any = remote
    handle = TrainingHandle(actor, MODEL, no_link)
    parts = split_far(far_data(groups, center(groups)), limits)
    operations: list[Operation] = [
        FarForwardBackward(seq, cast("Any", part), "ppo", part=seq - 1, num_parts=len(parts))
        for seq, part in enumerate(parts, 1)
    ]
    operations.append(OptimStep(len(parts) + 1, AdamParams()))
    *outputs, _ = await asyncio.gather(*(handle.run(one) for one in operations))
    return join_far(outputs)


def tokens_of(groups: list[TrajectoryGroup]) -> list[list[int]]:
    return [datum.model_input.to_ints() for datum in from_groups(groups, center(groups))]


def sent(toy: ToyService) -> list[list[int]]:
    return [tokens for number in sorted(toy.data) for tokens in toy.data[number]]


@pytest.mark.parametrize("max_datums", [1, 3, 100])
async def test_the_service_gets_the_batch_as_it_would_by_value(
    remote: FakeRemote, toy: ToyService, max_datums: int
) -> None:
    store = FakeStore()
    groups = [store.far(FIRST), SECOND, store.far(SECOND)]
    output = await trained(remote, groups, ChunkLimits(max_datums=max_datums))
    expected = tokens_of([FIRST, SECOND, SECOND])
    assert expected == sent(toy)
    assert float(sum(map(len, expected))) == output.metrics["loss:sum"]
    assert (3 * NUM_TOKENS, 6) == (output.agreement.num_tokens, output.num_data)
    assert 9 * LOG_RATIO == pytest.approx(output.agreement.log_ratio)
    assert frozenset() == output.lost


async def test_what_travels_does_not_grow_with_the_tokens(remote: FakeRemote) -> None:
    store = FakeStore()
    long = group_of(episode(0.0, 1.0, num_tokens=600), episode(0.0, num_tokens=600))
    await trained(remote, [store.far(long)])
    [operation] = [arguments[0] for _, arguments in remote.calls if len(arguments) == 2][:1]
    [item, _] = operation.data
    assert 1200 < item.length
    assert len(pickle.dumps([(item.episode, item.length, item.advantage)])) < 200
    assert isinstance(operation, FarForwardBackward)


async def test_groups_that_are_lost_are_left_out_and_told(
    remote: FakeRemote, toy: ToyService
) -> None:
    store = FakeStore()
    groups = [store.far(FIRST), store.far(SECOND), store.far(FIRST)]
    del store.kept[1]
    output = await trained(remote, groups)
    assert (tokens_of([FIRST, FIRST]), [1]) == (sent(toy), list(output.lost))
    assert (2 * NUM_TOKENS, 4) == (output.agreement.num_tokens, output.num_data)


async def test_a_part_that_is_lost_as_a_whole_holds_up_nothing(
    remote: FakeRemote, toy: ToyService
) -> None:
    store = FakeStore()
    groups = [store.far(FIRST), store.far(SECOND)]
    del store.kept[0]
    output = await trained(remote, groups, ChunkLimits(max_datums=2))
    assert [1, 2, 3] == [seq for seq, _ in toy.applied[MODEL.model_id]]
    assert [0] == list(output.lost)
    assert ([[0], *tokens_of([SECOND])], 2) == (sent(toy), output.num_data)
    assert {"forward_backward", "optim_step"} == {kind for _, kind in toy.applied[MODEL.model_id]}
    assert "loss:sum" in output.metrics


async def test_an_actor_that_dies_over_far_data_trains_on_each_once(
    remote: FakeRemote, toy: ToyService
) -> None:
    remote.deaths = 5
    store = FakeStore()
    output = await trained(remote, [store.far(FIRST), store.far(SECOND)], ChunkLimits(max_datums=1))
    assert [1, 2, 3, 4, 5] == [seq for seq, _ in toy.applied[MODEL.model_id]]
    assert tokens_of([FIRST, SECOND]) == sent(toy)
    assert 4 == output.num_data


@pytest.mark.parametrize("num_groups", [1, 2])
async def test_what_was_applied_before_something_was_lost_is_not_lost(
    remote: FakeRemote, toy: ToyService, num_groups: int
) -> None:
    store = FakeStore()
    groups = [store.far(FIRST) for _ in range(num_groups)]
    actor: Any = remote
    operation = FarForwardBackward(1, cast("Any", far_data(groups, center(groups))), "ppo")
    await TrainingHandle(actor, MODEL, no_link).run(operation)
    del store.kept[0]
    remote.actor = remote.make()  # which knows of no operation before it
    output: FarOutput = await remote.actor.run(operation)
    assert (2 * num_groups, 0) == (output.num_data, len(output.lost))
    assert [1] == [seq for seq, _ in toy.applied[MODEL.model_id]]
    assert 0.0 < output.metrics["loss:sum"]


async def test_copies_of_a_client_send_far_data_too(remote: FakeRemote, toy: ToyService) -> None:
    actor: Any = remote
    owner = TrainingHandle(actor, MODEL, no_link)
    owner.hand_over(1)
    copy = TrainingHandle(actor, MODEL, no_link, is_copy=True)
    groups = [FakeStore().far(FIRST)]
    part = cast("Any", far_data(groups, center(groups)))
    await asyncio.sleep(0)
    output = await copy.run(FarForwardBackward(1, part, "ppo"))
    assert (tokens_of([FIRST]), 2) == (sent(toy), output.num_data)
    await owner.aclose()


def test_outputs_are_joined_by_the_metrics_of_those_that_trained() -> None:
    joined = join_far(
        [
            FarOutput({"loss:sum": 1.0, "x:mean": 1.0}, Agreement(0.5, 2), frozenset(), 1),
            FarOutput(lost=frozenset({3})),
            FarOutput({"loss:sum": 2.0, "x:mean": 4.0}, Agreement(-1.0, 3), frozenset({4}), 2),
        ]
    )
    metrics = {"loss:sum": 3.0, "x:mean": 3.0}
    assert FarOutput(metrics, Agreement(-0.5, 5), frozenset({3, 4}), 3) == joined
    assert FarOutput() == join_far([])
