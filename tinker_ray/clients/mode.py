"""Where the clients of this process run: in it, or on a Ray cluster.

Imports Ray only for the latter.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from tinker_ray.config import EMBEDDED_API_KEY, MODES, Secret, Settings
from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinker_ray.config import Mode
    from tinker_ray.core.port import Runtime
    from tinker_ray.engine.launcher import EmbeddedEngine

DEFAULT_EMBEDDED_MODEL = "tinker-ray/tiny-adder"


class _Choice:
    """What :func:`init` was told, until :func:`shutdown`."""

    lock = threading.Lock()
    mode: Mode | None = None


def init(address: str | None = None, *, mode: Mode | None = None, **ray_options: Any) -> None:  # noqa: ANN401
    """Choose where the clients of this process run, and connect to Ray if that is a cluster.

    Args:
        address: A Ray cluster; None attaches to the one of ``RAY_ADDRESS`` or of the job that this
            process belongs to, else starts one on this machine.
        mode: ``local`` or ``cluster``; None and ``auto`` mean cluster, as calling this says.
        ray_options: Further arguments for ``ray.init``, such as ``num_cpus``.

    Raises:
        ConfigurationError: ``mode`` is unknown, or local with an address.
    """
    if mode not in {None, *MODES}:
        message = f"mode={mode!r} is unknown: use one of {', '.join(MODES)}"
        raise ConfigurationError(message)
    if mode == "local" and address is not None:
        message = f"mode='local' has no use for address={address!r}: drop one of them"
        raise ConfigurationError(message)
    with _Choice.lock:
        if mode != "local":
            from actors import cluster

            cluster.connect(address, worker_hook=_worker_hook(), **ray_options)
        _Choice.mode = "local" if mode == "local" else "cluster"


def shutdown() -> None:
    """Undo :func:`init`: disconnect from Ray, and stop it if ``init`` started it; idempotent."""
    with _Choice.lock:
        chosen, _Choice.mode = _Choice.mode, None
        if chosen == "cluster":
            from actors import cluster

            cluster.disconnect()


def current_mode(settings: Settings) -> Literal["local", "cluster"]:
    """Decide for new clients: by what :func:`init` chose, the settings, or whether Ray runs."""
    wanted = _Choice.mode or settings.mode
    if wanted != "auto":
        return wanted
    ray = sys.modules.get("ray")
    initialised = ray is not None and bool(getattr(ray, "is_initialized", bool)())
    return "cluster" if initialised or settings.ray_address is not None else "local"


def embedded_engine(settings: Settings) -> tuple[Settings, EmbeddedEngine | None]:
    """Turn an embedded address into a running engine's; other settings pass through.

    Raises:
        EngineStartError: The engine did not come up.
    """
    model = settings.embedded_model
    if model is None:
        return settings, None
    from tinker_ray.engine.launcher import embedded

    engine = embedded(model or DEFAULT_EMBEDDED_MODEL, settings.home)
    return at_engine(settings, engine), engine


def at_engine(settings: Settings, engine: EmbeddedEngine) -> Settings:
    """Point settings to an engine that runs on this machine, which asks for no key."""
    key = Secret(EMBEDDED_API_KEY)
    return replace(settings, base_url=engine.url, api_key=key, engine=engine.process)


async def open_runtime(
    settings: Settings,
    user_metadata: Mapping[str, Any] | None,
    mode: Literal["local", "cluster"],
    display_name: str | None,
) -> Runtime:
    """Open a session and what stands behind it.

    Raises:
        APIError: The service refused or could not be reached.
        ConfigurationError: A setting cannot work.
    """
    if mode == "cluster":
        from actors import cluster
        from actors.runtime import ClusterRuntime

        cluster.connect(settings.ray_address, worker_hook=_worker_hook())
        return await ClusterRuntime.open(settings, user_metadata, display_name=display_name)
    from tinker_ray.core.runtime import LocalRuntime

    return await LocalRuntime.open(settings, user_metadata, display_name=display_name)


def _worker_hook() -> str | None:
    """What Ray's workers have to do first, if `tinker` is this package here."""
    from tinker_ray.clients import install

    return install.WORKER_HOOK if install.is_installed() else None
