"""Groups by reference on real Ray: what the driver gets, what training gets, what gets lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import pytest
import ray

from actors.reference import StoredGroup
from tests.fakes.environment import CountingGroup
from tests.fakes.toy_service import ToyServer, ToyService
from tinker_ray import ServiceClient
from tinker_ray.clients.mode import init, shutdown
from tinker_ray.config import EMBEDDED_API_KEY
from tinker_ray.rl.adder import AdderDataset, Tokenizer
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.outcome import FinishedGroup
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rl.update import Update, Updater
from tinker_ray.rollouts import RolloutFailedError, RolloutParams, center
from tinker_ray.rollouts.datum import from_groups
from tinker_ray.rollouts.far import FAR_BYTES, FarTrajectories
from tinker_ray.rollouts.far_datum import far_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tinker_ray.rollouts import Env

pytestmark = pytest.mark.usefixtures("ray_cluster")

PROMPT = list(range(8000))
PARAMS = RolloutParams(max_tokens=3, seed=5)
CONFIG = RunConfig(prompts_per_step=6, samples_per_prompt=4, rank=4)


@contextmanager
def on_cluster(base_url: str) -> Iterator[ServiceClient]:
    """A client of a service, on the lent Ray."""
    init()
    try:
        with ServiceClient(base_url=base_url) as service:
            yield service
    finally:
        shutdown()


@dataclass
class TellsPid(CountingGroup):
    """Long conversations; the tags of a group's metrics hold its process."""

    async def compute_group_rewards(
        self, trajectory_group: list[Any], env_group: Sequence[Env]
    ) -> list[tuple[float, dict[str, float | int]]]:
        del env_group
        return [(float(n), {"pid": os.getpid()}) for n, _ in enumerate(trajectory_group)]


@ray.remote
class Owner:
    """Has something put away, and dies with it."""

    def put(self) -> list[Any]:
        return [ray.put(bytes(1_000_000))]


def lost_reference() -> StoredGroup:
    """A reference to what is not there any more."""
    owner = Owner.remote()  # type: ignore[attr-defined] # Ray makes it
    [ref] = ray.get(owner.put.remote())
    ray.kill(owner)
    with contextlib.suppress(RolloutFailedError):
        while True:
            StoredGroup(ref).fetch()
    return StoredGroup(ref)


def size_in_ray(value: object) -> int:
    """How many bytes Ray sends for a value."""
    return len(ray.cloudpickle.dumps(value))  # type: ignore[no-untyped-call] # Ray's own copy


async def test_large_trajectories_get_to_training_and_the_driver_has_their_numbers_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TINKER_API_KEY", EMBEDDED_API_KEY)
    toy = ToyService()
    with ToyServer(toy) as server, on_cluster(server.url) as service:
        training = await service.create_lora_training_client_async(base_model="toy")
        sampler = await service.create_sampling_client_async(base_model="toy")
        builders = [TellsPid([*PROMPT, number], size=8, num_turns=2) for number in range(3)]
        async with RolloutPool(1) as pool:
            groups = [group async for group in pool.run(builders, sampler, PARAMS)]
            groups.sort(key=lambda group: group.index)
            items = far_data(groups, center(groups))
            assert [True] * 3 == [group.is_far for group in groups]
            assert all(FAR_BYTES < group.far.summary.num_bytes for group in groups if group.far)
            assert size_in_ray(groups) + size_in_ray(items) < 3 * 8 * 1024
            for pid in {metrics["pid"] for group in groups for metrics in group.metrics_G}:
                os.kill(int(pid), signal.SIGKILL)  # what they had outlives them
            far = cast("FarTrajectories", groups[1].far)
            groups[1].far = replace(far, reference=lost_reference())
            items = far_data(groups, center(groups))
            output = await training.forward_backward_far(items, "ppo")
            near = [groups[0], groups[2]]
            assert [True] * 3 == [group.is_far for group in groups]
            expected = from_groups(near, center(near))
            with pytest.raises(RolloutFailedError, match="its trajectories are lost with the node"):
                groups[1].trajectories_G  # noqa: B018 - reading it fetches
    sent = [tokens for part in toy.data.values() for tokens in part]
    assert sorted(datum.model_input.to_ints() for datum in expected) == sorted(sent)
    assert ([1], len(expected)) == (list(output.lost), output.num_data)


async def arriving(groups: Sequence[FinishedGroup]) -> AsyncIterator[FinishedGroup]:
    for group in groups:
        yield group


async def train_on_a_batch(service: ServiceClient, far_bytes: int | None) -> Update:
    training = await service.create_lora_training_client_async(CONFIG.base_model, rank=4, seed=1)
    sampler = await training.save_weights_and_get_sampling_client_async()
    dataset = AdderDataset(cast("Tokenizer", training.get_tokenizer()), 3, 6, 4)
    async with RolloutPool(2, far_bytes=far_bytes) as pool:
        run = pool.run(dataset.batch(0), sampler, RolloutParams(max_tokens=8, seed=3))
        groups = [group async for group in run]
        assert [far_bytes is not None] * 6 == [group.is_far for group in groups]
        return await Updater(CONFIG, training).train(0, arriving(groups), len(groups))


async def test_training_by_reference_gives_the_loss_of_training_by_value(
    embedded_engine: str,
) -> None:
    with on_cluster("embedded") as service:
        far, near = await asyncio.gather(
            train_on_a_batch(service, 1), train_on_a_batch(service, None)
        )
    assert (near.loss, near.optim_steps) == (far.loss, far.optim_steps)
    assert near.kl_sample_train == pytest.approx(far.kl_sample_train, abs=1e-6)
    assert near.loss != 0.0
    assert [True] * 6 == [group.is_far for group in far.groups]
    assert actions(near.groups) == actions(far.groups)


def actions(groups: Sequence[FinishedGroup]) -> list[tuple[list[int], list[float]]]:
    turns = [turn for group in groups for one in group.trajectories_G for turn in one.transitions]
    return [(turn.ac.tokens, turn.ac.logprobs) for turn in turns]
