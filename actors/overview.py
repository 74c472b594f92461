"""What runs on a Ray cluster, for people who look: its sessions, as their actors tell.

Looking takes part in nothing: it starts no actor and holds no permit.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.util import list_named_actors

from actors import cluster
from actors.handles.remote import RemoteActor
from tinker_ray.errors import ActorLostError, ConfigurationError, TinkerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.sampler import SamplerState

ANSWER_S = 5.0
"""How long an actor may take to answer before it counts as silent."""
SESSION_SUFFIX = "/session"
SAMPLER_PREFIX = "sampler-"


@dataclass(frozen=True, slots=True)
class SessionOverview:
    """A session on the cluster.

    Attributes:
        session_id: Its id at the service.
        namespace: The Ray namespace of its actors.
        actors: Their names there, without the session's id.
        inventory: What its actor says of itself; None if it did not answer.
        problem: Why it did not.
        samplers: What its samplers say of themselves, by name; None for one that does not answer,
            because it is starting or lost.
    """

    session_id: str
    namespace: str
    actors: tuple[str, ...]
    inventory: dict[str, Any] | None = None
    problem: str | None = None
    samplers: Mapping[str, SamplerState | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterOverview:
    """A cluster.

    Attributes:
        address: Of its head.
        nodes: That are alive.
        sessions: By session id.
    """

    address: str
    nodes: int
    sessions: Sequence[SessionOverview]


def overview(address: str | None = None) -> ClusterOverview:
    """Look at a cluster; blocks. Connects to Ray, and disconnects again if it did.

    Args:
        address: None for that of ``RAY_ADDRESS``, or of the Ray that this process is connected to.

    Raises:
        ConfigurationError: The cluster cannot be reached.
    """
    was_connected = cluster.is_initialized()
    if not was_connected:
        _check_port(address)
    cluster.connect(address)
    try:
        return ClusterOverview(
            address=ray.get_runtime_context().gcs_address,
            nodes=sum(node["Alive"] for node in _nodes()),
            sessions=asyncio.run(_sessions(_named())),
        )
    finally:
        if not was_connected:
            cluster.disconnect()


def _check_port(address: str | None) -> None:
    """Find out at once what Ray finds out after more than a minute: that nobody listens.

    Raises:
        ConfigurationError: Nobody does.
    """
    host, _, port = (address or "").rpartition("/")[2].rpartition(":")
    if not host or not port.isdecimal():  # "auto", or a name that only Ray understands
        return
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_S):
            pass
    except OSError as error:
        raise ConfigurationError(f"Ray at {address} cannot be reached: {error}") from None


async def _sessions(named: list[tuple[str, str]]) -> list[SessionOverview]:
    actors: dict[tuple[str, str], list[str]] = {}
    for namespace, full_name in named:
        session_id, _, name = full_name.rpartition("/")
        actors.setdefault((namespace, session_id), []).append(name)
    sessions = [key for key, names in actors.items() if SESSION_SUFFIX[1:] in names]
    return list(
        await asyncio.gather(
            *(_session(*key, tuple(sorted(actors[key]))) for key in sorted(sessions))
        )
    )


async def _session(namespace: str, session_id: str, actors: tuple[str, ...]) -> SessionOverview:
    names = [name for name in actors if name.startswith(SAMPLER_PREFIX)]
    (inventory, problem), *states = await asyncio.gather(
        _inventory(RemoteActor(session_id + SESSION_SUFFIX, namespace)),
        *(_sampler(RemoteActor(f"{session_id}/{name}", namespace)) for name in names),
    )
    samplers = dict(zip(names, states, strict=True))
    return SessionOverview(session_id, namespace, actors, inventory, problem, samplers)


async def _inventory(remote: RemoteActor) -> tuple[dict[str, Any] | None, str | None]:
    """What a session's actor says of itself, or why it says nothing."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await remote.call("inventory"), None
    except TimeoutError:
        return None, f"no answer within {ANSWER_S:g} s"
    except TinkerError as error:
        return None, "its actor is lost" if isinstance(error, ActorLostError) else str(error)


async def _sampler(remote: RemoteActor) -> SamplerState | None:
    try:
        async with asyncio.timeout(ANSWER_S):
            state: SamplerState = await remote.control("state")
    except (TimeoutError, TinkerError):
        return None
    return state


def _named() -> list[tuple[str, str]]:
    entries: list[dict[str, str]] = list_named_actors(all_namespaces=True)
    return [(entry["namespace"], entry["name"]) for entry in entries if "/" in entry["name"]]


def _nodes() -> list[dict[str, Any]]:
    nodes: Any = ray.nodes
    listed: list[dict[str, Any]] = nodes()
    return listed
