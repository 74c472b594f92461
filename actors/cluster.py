"""This process's connection to Ray: to a cluster, or to one that is started on this machine.

Imports Ray only when it is needed.
"""

from __future__ import annotations

import secrets
import sys
from typing import Any

from tinker_ray.config import Settings
from tinker_ray.errors import ConfigurationError


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


def connect(address: str | None = None, **options: Any) -> None:  # noqa: ANN401
    """Connect to Ray, unless this process is connected already.

    Args:
        address: A cluster; None takes that of ``RAY_ADDRESS``, which is set in a Ray job too, and
            if there is none starts Ray on this machine.
        options: Further arguments for ``ray.init``.

    Raises:
        ConfigurationError: The cluster cannot be reached.
    """
    if is_initialized():
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


def disconnect() -> None:
    """Undo :func:`connect`: Ray is stopped if it was started here; idempotent."""
    made_here = _Connection.made_here
    _Connection.made_here = _Connection.started_here = False
    if made_here and is_initialized():
        import ray

        ray.shutdown()
