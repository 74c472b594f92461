"""Starting the actors of a session: their names, their places, how long they are believed in."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.util import list_named_actors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.handles.remote import Patience, RemoteActor
from actors.worker_options import PLAIN_WORKER, WorkerOptions
from tinker_ray.limits.permit import DISPATCH_LIMIT

if TYPE_CHECKING:
    from actors.service import ServiceSpec
    from tinker_ray.sampler_pool import PoolSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """How many actors, and what they take.

    Attributes:
        min_samplers: Sampler actors at least.
        max_samplers: At most. In use, there is one per node, and more when there is more to do than
            they carry well.
        samples_per_sampler: Samples, waiting or in flight, that one carries well.
        sampler_idle_s: How long fewer samplers would have done before some are drained.
        hedge_after_s: When a repeatable sample is drawn by a second sampler, too; None for never.
        num_cpus: Logical CPUs of an actor that only waits for the network.
        rollout_cpus: Logical CPUs of a rollout actor.
        permits: Sampling requests under way at once on the whole cluster.
        patience: How long to believe in actors that do not answer.
    """

    min_samplers: int = 1
    max_samplers: int = 8
    samples_per_sampler: int = 5000
    sampler_idle_s: float = 60.0
    hedge_after_s: float | None = None
    num_cpus: float = 0.05
    rollout_cpus: float = 0.1
    permits: int = DISPATCH_LIMIT
    patience: Patience = field(default_factory=Patience)

    @classmethod
    def of(cls, pool: PoolSettings) -> ClusterOptions:
        """Take what users may choose."""
        return cls(**asdict(pool))


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts and finds actors of one session.

    Attributes:
        service: The session.
        namespace: Of the run.
        options: What the actors take.
        prefix: Of the names of what this process starts; one session may have several.
    """

    service: ServiceSpec
    namespace: str
    options: ClusterOptions
    prefix: str = ""

    def start(
        self,
        actor_class: Any,  # noqa: ANN401 - Ray's
        name: str,
        *arguments: Any,  # noqa: ANN401 - of the plain class
        num_cpus: float | None = None,
        node: str | None = None,
        worker: WorkerOptions = PLAIN_WORKER,
    ) -> RemoteActor:
        """Start an actor; it ends with this process at the latest.

        Args:
            actor_class: Bound to Ray.
            name: Within the session.
            arguments: Of the plain class.
            num_cpus: Logical CPUs; by default those of an actor that waits for the network.
            node: The only Ray node where it may run; None spreads the actors.
            worker: What it is given, if it runs code of the user's.
        """
        full_name = self.full_name(f"{self.prefix}{name}")
        num_cpus = self.options.num_cpus if num_cpus is None else num_cpus
        actor = actor_class.options(
            name=full_name,
            namespace=self.namespace,
            scheduling_strategy="SPREAD"
            if node is None
            else NodeAffinitySchedulingStrategy(node, soft=False),
            **worker.ray_options(num_cpus=num_cpus),
        ).remote(*arguments)
        return RemoteActor(full_name, self.namespace, actor, self.options.patience)

    def find(self, full_name: str) -> RemoteActor:
        """Return an actor that another process started."""
        return RemoteActor(full_name, self.namespace, patience=self.options.patience)

    def full_name(self, name: str) -> str:
        """Return the name of an actor of the session on the cluster."""
        return f"{self.service.session_id}/{name}"


def living_nodes() -> list[dict[str, Any]]:
    """Describe the nodes of the cluster."""
    nodes: Any = ray.nodes
    return [node for node in nodes() if node["Alive"]]


def node_cpus() -> dict[str, float] | None:
    """Give the logical CPUs of each living node; None if this process is in no cluster."""
    if not ray.is_initialized():
        return None
    return {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in living_nodes()}


def living_actors(namespace: str) -> set[str] | None:
    """Give the names of a namespace's actors; None if this process is in no cluster."""
    if not ray.is_initialized():
        return None
    entries: list[dict[str, str]] = list_named_actors(all_namespaces=True)
    return {entry["name"] for entry in entries if entry["namespace"] == namespace}


def own_node() -> str:
    """Return the id of this process's node."""
    node: str = ray.get_runtime_context().get_node_id()
    return node
