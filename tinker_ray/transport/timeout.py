"""The timeout object of the HTTP library, which upstream exports and its clients take."""

from __future__ import annotations

from httpx import Timeout

from tinker_ray.wire.endpoint import CONNECT_TIMEOUT_S, DEFAULT_TIMEOUT_S

DEFAULT_TIMEOUT = Timeout(DEFAULT_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)

__all__ = ["DEFAULT_TIMEOUT", "Timeout"]
