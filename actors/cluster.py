"""This process's connection to Ray: to a cluster, or to one that is started on this machine.

Imports Ray only when it is needed.
"""

from __future__ import annotations

import secrets
import sys
from typing import Any

from tinker_ray.config import Settings
from tinker_ray.errors import ConfigurationError

_HOOK = "worker_process_setup_hook"


class _Connection:
    """What :func:`connect` did, until :func:`disconnect`."""

    made_here = False
    started_here = False


def is_initialized() -> bool:
    """Tell whether this process is connected to Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(getattr(ray, "is_initialized", bool)())


def started_here() -> bool:
    """Tell whether :func:`connect` started the Ray that this process is connected to."""
    return _Connection.started_here and is_initialized()


def connect(
    address: str | None = None,
    *,
    worker_hook: str | None = None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Connect to Ray, unless this process is connected already.

    Args:
        address: A cluster; None takes that of ``RAY_ADDRESS``, which is set in a Ray job too, and
            if there is none starts Ray on this machine.
        worker_hook: A function, by its path, that every worker process is to call first.
        options: Further arguments for ``ray.init``.

    Raises:
        ConfigurationError: The cluster cannot be reached, or its workers do not call the hook.
    """
    if is_initialized():
        if worker_hook is not None:
            check_worker_hook(worker_hook)
        return
    import ray

    address = address or Settings.from_env().ray_address
    starts = address in {None, "local"}
    chosen: dict[str, Any] = {
        "namespace": f"tinker-ray-{secrets.token_hex(4)}",
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if starts:
        chosen["include_dashboard"] = False
    if worker_hook is not None:
        options["runtime_env"] = _with_hook(options.get("runtime_env") or {}, worker_hook)
    try:
        ray.init(address or "local", **(chosen | options))
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        message = (
            f"Ray at {address or 'this machine'} cannot be reached: {error}. If the cluster asks "
            "for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to its token's file, as "
            "where it was started; else set RAY_AUTH_MODE=disabled"
        )
        raise ConfigurationError(message) from error
    _Connection.made_here, _Connection.started_here = True, starts


def check_worker_hook(worker_hook: str) -> None:
    """Refuse a Ray whose workers do not call a function first.

    A worker itself is not asked: it has what its driver chose.

    Raises:
        ConfigurationError: This process is a driver, and its workers do not.
    """
    import ray

    context = ray.get_runtime_context()
    if context.worker.mode != ray.SCRIPT_MODE:
        return
    if context.runtime_env.get(_HOOK) != worker_hook:
        message = (
            "this process is connected to Ray already, whose workers do not know `tinker`: call "
            "tinker_ray.install() before ray.init, and let tinker_ray.init() connect; or pass "
            f"ray.init(runtime_env={{{_HOOK!r}: {worker_hook!r}}})"
        )
        raise ConfigurationError(message)


def _with_hook(runtime_env: Any, worker_hook: str) -> dict[str, Any]:  # noqa: ANN401 - Ray's
    """Add the hook to a runtime environment.

    Raises:
        ConfigurationError: There is another one.
    """
    given = dict(runtime_env)
    other = given.setdefault(_HOOK, worker_hook)
    if other != worker_hook:
        message = (
            f"runtime_env has the {_HOOK} {other!r}: drop it, and call "
            f"{worker_hook}() in it, passing it to ray.init yourself"
        )
        raise ConfigurationError(message)
    return given


def disconnect() -> None:
    """Undo :func:`connect`: Ray is stopped if it was started here; idempotent."""
    made_here = _Connection.made_here
    _Connection.made_here = _Connection.started_here = False
    if made_here and is_initialized():
        import ray

        ray.shutdown()
