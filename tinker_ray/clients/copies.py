"""Clients in other processes: what a pickled client consists of, and what becomes of it there.

A copy is described by an *origin*: addresses, ids and flags, as JSON. There are no credentials in
it; every process uses its own. On a Ray cluster, copies call the actors of the session's owner, and
end with it. Elsewhere they take part in the session themselves, with a heartbeat of their own.

Invariant: in one process there is one session object per session, however many copies arrive.
"""

from __future__ import annotations

import base64
import json
import threading
import weakref
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.mode import at_engine, current_mode
from tinker_ray.clients.once import Once
from tinker_ray.clients.session import ClientSession
from tinker_ray.config import EMBEDDED_API_KEY, EngineProcess, Secret, Settings
from tinker_ray.core.flags import JSON_ONLY, config_of, dynamic_flags_of, flags_of
from tinker_ray.core.session import ModelHandle
from tinker_ray.errors import ConfigurationError
from tinker_ray.types import ClientConfigResponse, ClientDynamicConfigResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinker_ray.clients.operations import Operations
    from tinker_ray.clients.registry_client import RegistryClient
    from tinker_ray.clients.sampling import SamplingClient
    from tinker_ray.clients.service import ServiceClient
    from tinker_ray.clients.training import TrainingClient
    from tinker_ray.core.flags import ServerFlags
    from tinker_ray.core.operation import Operation
    from tinker_ray.core.port import Runtime, TrainingPort
    from tinker_ray.engine.launcher import EmbeddedEngine
    from tinker_ray.types import RetryConfig

Origin: TypeAlias = dict[str, Any]
"""Where a client comes from, as JSON."""

_SESSIONS: weakref.WeakValueDictionary[tuple[str, str], ClientSession] = (
    weakref.WeakValueDictionary()
)
"""By address and id: the sessions that this process has, as their owner or by copies."""
_LOCK = threading.Lock()


# --- leaving --------------------------------------------------------------------------------------


def origin_of(session: ClientSession, *, creates: bool = False) -> Origin:
    """Describe an open session for a copy in another process.

    Args:
        session: Of the client; it is opened if it is not.
        creates: Copies will make models or sampling sessions in it.

    Raises:
        APIError: The service refused or could not be reached.
    """
    if session.origin is not None:
        return session.origin
    runtime = session.opened or APIFuture.start(session.runtime()).result()
    with _LOCK:
        _SESSIONS[session.settings.base_url, runtime.session_id] = session
    return service_of(session) | {
        "session_id": runtime.session_id,
        "flags": _flags_json(runtime.flags),
        "cluster": runtime.reference(creates=creates),
    }


def service_of(session: ClientSession) -> Origin:
    """Describe the service behind a session, and what the session was opened with."""
    settings = session.settings
    engine = settings.engine
    return {
        "base_url": settings.base_url,
        "headers": settings.shareable_headers(),
        "timeout_s": settings.timeout_s,
        "max_retries": settings.max_retries,
        "project_id": settings.project_id,
        "engine": None if engine is None else {"pid": engine.pid, "folder": str(engine.folder)},
        "user_metadata": dict(session.user_metadata or {}),
        "display_name": session.display_name,
    }


def training_state(
    session: ClientSession, operations: Operations, model_id: str
) -> tuple[Origin, str, str]:
    """Describe a training client for a copy, and hand its order over to the model's actor.

    Raises:
        ConfigurationError: There is no actor: the model is trained from this process.
    """
    hand_over = getattr(operations.port, "hand_over", None)
    if hand_over is None:
        message = (
            "a TrainingClient in local mode cannot be passed to another process, because the order "
            "of its operations is kept in this one: run on a Ray cluster (tinker_ray.init()), or "
            "pass a checkpoint's path and make a client there"
        )
        raise ConfigurationError(message)
    actor: str = operations.order.hand_over(hand_over)
    return origin_of(session, creates=True), model_id, actor


def service_state(session: ClientSession) -> Origin:
    """Describe a service client for a copy, which shares the session if that is on a cluster.

    Raises:
        APIError: The session had to be opened, and the service refused or could not be reached.
    """
    if session.origin is not None or current_mode(session.settings) == "cluster":
        return origin_of(session, creates=True)
    return service_of(session)


def encode_handle(
    origin: Origin, sampling_session_id: str, *, base_model: str, record_stability_info: bool
) -> str:
    """Make the text that stands for a sampling client; the upstream SDK reads it, too."""
    flags = origin["flags"]
    here = {name: value for name, value in origin.items() if name != "flags"}
    fields = {
        "session_id": origin["session_id"],
        "sampling_session_id": sampling_session_id,
        "holder": {
            "base_url": origin["base_url"],
            "default_headers_overrides": origin["headers"],
            # Unknown flags are ignored by all: ours is what upstream has no place for.
            "client_config": flags["config"]
            | {"tinker_ray": here | {"protobuf": flags["protobuf"]}},
            "client_dynamic_config": flags["dynamic"],
            "api_key": None,
        },
        "base_model": base_model,
        "record_stability_info": record_stability_info,
    }
    text = json.dumps(fields, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode()


# --- arriving -------------------------------------------------------------------------------------


def sampling_client(
    origin: Origin,
    sampling_session_id: str,
    retry_config: RetryConfig | None,
    details: Mapping[str, Any],
    api_key: str | None = None,
) -> SamplingClient:
    """Make the copy of a sampling client."""
    from tinker_ray.clients.sampling import SamplingClient

    session = session_of(origin, api_key)
    return SamplingClient(session, sampling_session_id, retry_config, **details)


def sampling_client_of(handle: str, api_key: str | None = None) -> SamplingClient:
    """Make the sampling client that a text stands for, of ours or of the upstream SDK.

    Raises:
        ValueError: That is no such text.
    """
    try:
        fields = json.loads(base64.urlsafe_b64decode(handle))
        holder = fields["holder"]
        here = holder["client_config"].pop("tinker_ray", {})
        protobuf = here.pop("protobuf", True)
        flags = {
            "config": holder["client_config"],
            "dynamic": holder["client_dynamic_config"],
            "protobuf": protobuf,
        }
        origin = {
            "base_url": holder["base_url"],
            "headers": holder["default_headers_overrides"],
            "session_id": fields["session_id"],
            **here,
            "flags": flags,
        }
        details = {name: fields[name] for name in ("base_model", "record_stability_info")}
        session_id: str = fields["sampling_session_id"]
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        message = f"{handle[:40]!r}… is no sampler handle: pass what get_sampler_handle() returned"
        raise ValueError(message) from error
    return sampling_client(origin, session_id, None, details, api_key)


def training_client(origin: Origin, model_id: str, actor: str) -> TrainingClient:
    """Make the copy of a training client."""
    from tinker_ray.clients.training import TrainingClient

    model = ModelHandle(model_id)
    session = session_of(origin)
    port = SharedTraining(session, model, actor)
    return TrainingClient(session, port, model, _flags_of(origin["flags"]))


def service_client(origin: Origin) -> ServiceClient:
    """Make the copy of a service client; one of a local session opens a session of its own."""
    from tinker_ray.clients.service import ServiceClient

    if origin.get("session_id") is not None:
        return ServiceClient.over(session_of(origin))
    session = ClientSession(
        _settings(origin, None),
        origin["user_metadata"],
        display_name=origin["display_name"],
        engine=_Engine(origin),
    )
    return ServiceClient.over(session)


def registry_client(kind: type[RegistryClient], origin: Origin) -> RegistryClient:
    """Make the copy of a client of REST calls, which belong to no session."""
    return kind.of_settings(_settings(origin, None), _Engine(origin))


def session_of(origin: Origin, api_key: str | None = None) -> ClientSession:
    """Return this process's object for a session of another process."""
    key = (origin["base_url"], origin["session_id"])
    with _LOCK:
        session = _SESSIONS.get(key)
        if session is None:
            session = ClientSession(
                _settings(origin, api_key),
                origin=origin,
                opener=_Joining(origin),
                engine=_Engine(origin),
            )
            _SESSIONS[key] = session
    return session


class SharedTraining:
    """One model's operations, from a process that got a copy of its client."""

    def __init__(self, session: ClientSession, model: ModelHandle, actor: str) -> None:
        self._session = session
        self._model = model
        self._actor = actor
        self._port: Once[TrainingPort] = Once(self._attach)  # one order for all operations

    def __repr__(self) -> str:
        """Show the model."""
        return f"SharedTraining({self._model.model_id!r})"

    async def run(
        self, operation: Operation, floor: int = 0, carrier: Mapping[str, str] | None = None
    ) -> Any:  # noqa: ANN401 - each kind of operation has its own result
        """Execute an operation among those of all copies, and return its result.

        Raises:
            ConfigurationError: This process is not connected to the cluster.
            TinkerError: The operation was refused or failed, or the owner is gone.
        """
        port = await self._port.get()
        return await port.run(operation, floor, carrier)

    def hand_over(self, number: int) -> str:
        """Return the actor's name; it has the order already."""
        del number
        return self._actor

    async def aclose(self) -> None:
        """Do nothing: the runtime closes what it opened."""

    async def _attach(self) -> TrainingPort:
        runtime = await self._session.runtime()
        attach = getattr(runtime, "attach_training", None)
        if attach is None:
            message = (
                f"{self._model.model_id} is trained through an actor, and this process is not "
                "connected to its Ray cluster: call ray.init or tinker_ray.init first"
            )
            raise ConfigurationError(message)
        port: TrainingPort = attach(self._model, self._actor)
        return port


class _Joining:
    """Opens the runtime of a copy: through the owner's actors, or beside the owner."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    async def __call__(self, settings: Settings, *_: object) -> Runtime:
        """Open it. Runs on the bridge.

        Raises:
            ConfigurationError: This process has no credentials.
        """
        origin = self._origin
        flags = _flags_of(origin["flags"])
        if _is_reached_by_actors(origin):
            from actors.attached import AttachedRuntime
            from actors.service import ServiceSpec

            service = ServiceSpec.of(settings, origin["session_id"], flags)
            return await AttachedRuntime.attach(service, settings, origin["cluster"])
        from tinker_ray.core.runtime import LocalRuntime

        return LocalRuntime.join(settings, origin["session_id"], flags)


class _Engine:
    """Holds the embedded engine that an origin names, if it names one."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    def __call__(self, settings: Settings) -> tuple[Settings, EmbeddedEngine | None]:
        """Point settings to the engine.

        Raises:
            EngineError: It has ended, or is on another machine.
        """
        told = self._origin.get("engine")
        if told is None:
            return settings, None
        process = EngineProcess(told["pid"], Path(told["folder"]))
        if _is_reached_by_actors(self._origin):  # the session's owner holds it
            key = Secret(EMBEDDED_API_KEY)
            return replace(settings, api_key=key, engine=process), None
        from tinker_ray.engine import launcher

        engine = launcher.join(process, settings.base_url)
        return at_engine(settings, engine), engine


def _is_reached_by_actors(origin: Origin) -> bool:
    if origin.get("cluster") is None:
        return False
    from actors import cluster

    return cluster.is_initialized()


def _settings(origin: Origin, api_key: str | None) -> Settings:
    """Put an origin together with what this process has by itself: credentials, above all."""
    return Settings.from_env(
        base_url=origin["base_url"],
        api_key=api_key,
        project_id=origin.get("project_id"),
        default_headers=origin["headers"],
        timeout_s=origin.get("timeout_s"),
        max_retries=origin.get("max_retries"),
    )


def _flags_json(flags: ServerFlags) -> dict[str, Any]:
    return {
        "config": config_of(flags).model_dump(),
        "dynamic": asdict(flags.dynamic),
        "protobuf": flags.protobuf,
    }


def _flags_of(told: dict[str, Any]) -> ServerFlags:
    flags = flags_of(ClientConfigResponse.model_validate(told["config"]))
    dynamic = dynamic_flags_of(ClientDynamicConfigResponse.model_validate(told["dynamic"]))
    if not told["protobuf"]:
        return JSON_ONLY
    return replace(flags, dynamic=dynamic)
