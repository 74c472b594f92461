"""Groups on two nodes, of which one is lost before training: a process of its own.

    python -m tests.fakes.lost_node

Prints as JSON which groups training found lost, and the tokens that the service was sent.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from ray.cluster_utils import Cluster

from tests.fakes.environment import CountingGroup
from tests.fakes.toy_service import ToyServer, ToyService
from tinker_ray import ServiceClient
from tinker_ray.clients.mode import init, shutdown
from tinker_ray.config import EMBEDDED_API_KEY
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rollouts import RolloutFailedError, RolloutParams, center
from tinker_ray.rollouts.far_datum import far_data

if TYPE_CHECKING:
    from tinker_ray.clients.sampling import SamplingClient
    from tinker_ray.rl.outcome import FinishedGroup

PROMPT = list(range(30_000))
"""Long enough for Ray to leave a group where it was made."""


async def groups_on(node: str, sampler: SamplingClient) -> list[FinishedGroup]:
    """Run two groups on the node that has a resource of this name."""
    builders = [CountingGroup([*PROMPT, number], size=3, num_turns=2) for number in range(2)]
    params = RolloutParams(max_tokens=3, seed=len(node))
    async with RolloutPool(1, resources={node: 0.01}) as pool:
        return [group async for group in pool.run(builders, sampler, params)]


async def train_without_a_node(service: ServiceClient, toy: ToyService, lose: Any) -> None:  # noqa: ANN401
    """Run groups on both nodes, lose one node, train on all groups."""
    training = await service.create_lora_training_client_async(base_model="toy")
    sampler = await service.create_sampling_client_async(base_model="toy")
    staying, leaving = await groups_on("staying", sampler), await groups_on("leaving", sampler)
    groups = [staying[0], leaving[0], staying[1], leaving[1]]
    items = far_data(groups, center(groups))
    lose()
    output = await training.forward_backward_far(items, "ppo")
    unread = 0
    for group in groups:
        try:
            await group.fetch()
        except RolloutFailedError:
            unread += 1
    report = {
        "lost": sorted(output.lost),
        "num_data": output.num_data,
        "num_sent": sum(map(len, toy.data.values())),
        "num_unread": unread,
    }
    print(json.dumps(report), flush=True)  # noqa: T201


def main() -> None:
    """Run it all on two nodes of this machine."""
    os.environ["TINKER_API_KEY"] = EMBEDDED_API_KEY
    arguments = {"num_cpus": 3, "resources": {"staying": 1}}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    node = cluster.add_node(num_cpus=1, resources={"leaving": 1})
    cluster.wait_for_nodes()
    toy = ToyService()
    init(address=cluster.address, log_to_driver=False)
    with ToyServer(toy) as server, ServiceClient(base_url=server.url) as service:

        def lose() -> None:
            cluster.remove_node(node, allow_graceful=False)

        asyncio.run(train_without_a_node(service, toy, lose))
    shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call] # of Ray's test utilities


if __name__ == "__main__":
    main()
