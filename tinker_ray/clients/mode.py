"""Where the clients of this process run: in it, or on a Ray cluster.

Imports Ray only for the latter.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from tinker_ray.config import EMBEDDED_API_KEY, MODES, Secret, Settings
from tinker_ray.errors import ConfigurationError
from tinker_ray.sampler_pool import PoolSettings

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
    pool: Mapping[str, Any] = MappingProxyType({})


def init(  # noqa: PLR0913 - one call for all choices
    address: str | None = None,
    *,
    mode: Mode | None = None,
    min_samplers: int | None = None,
    max_samplers: int | None = None,
    samples_per_sampler: int | None = None,
    sampler_idle_s: float | None = None,
    hedge_after_s: float | None = None,
    **ray_options: Any,  # noqa: ANN401 - Ray's
) -> None:
    """Choose where the clients of this process run, and connect to Ray if that is a cluster.

    Args:
        address: A Ray cluster; None attaches to the one of ``RAY_ADDRESS`` or of the job that this
            process belongs to, else starts one on this machine.
        mode: ``local`` or ``cluster``; None and ``auto`` mean cluster, as calling this says.
        min_samplers: Sampler actors of a session that are always there; None takes 1.
        max_samplers: Those at most; None takes 8, or ``min_samplers`` if that is more.
        samples_per_sampler: Samples, waiting or in flight, that one carries well; None takes 5000.
        sampler_idle_s: Seconds for which fewer would have done before some end; None takes 60.
        hedge_after_s: Seconds after which a slow repeatable sample (with a seed, at temperature 0,
            or for scores only) is drawn by a second sampler, too; None takes no second one.
        ray_options: Further arguments for ``ray.init``, such as ``num_cpus``.

    Raises:
        ConfigurationError: ``mode`` is unknown, or local with an address; or a number is out of
            its range.
    """
    pool = {
        "min_samplers": min_samplers,
        "max_samplers": max_samplers,
        "samples_per_sampler": samples_per_sampler,
        "sampler_idle_s": sampler_idle_s,
        "hedge_after_s": hedge_after_s,
    }
    chosen = {name: value for name, value in pool.items() if value is not None}
    _with_choice(PoolSettings(), chosen)
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
        _Choice.pool = chosen


def shutdown() -> None:
    """Undo :func:`init`: disconnect from Ray, and stop it if ``init`` started it; idempotent."""
    with _Choice.lock:
        chosen, _Choice.mode = _Choice.mode, None
        _Choice.pool = {}
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
        settings = replace(settings, pool=_with_choice(settings.pool, _Choice.pool))
        return await ClusterRuntime.open(settings, user_metadata, display_name=display_name)
    from tinker_ray.core.runtime import LocalRuntime

    return await LocalRuntime.open(settings, user_metadata, display_name=display_name)


def _with_choice(pool: PoolSettings, chosen: Mapping[str, Any]) -> PoolSettings:
    """Let what :func:`init` was told win over the environment.

    Raises:
        ConfigurationError: A value is out of its range.
    """
    least = chosen.get("min_samplers", pool.min_samplers)
    most = {"max_samplers": max(pool.max_samplers, least)}
    return replace(pool, **(most | dict(chosen)))


def _worker_hook() -> str | None:
    """What Ray's workers have to do first, if `tinker` is this package here."""
    from tinker_ray.clients import install

    return install.WORKER_HOOK if install.is_installed() else None
