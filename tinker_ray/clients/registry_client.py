"""What ``RestClient`` and ``AdminClient`` share: calls to the service that need no session.

Clients of one service and one credential share their connections in a process, until it ends.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any, Self

from tinker_ray.clients import copies
from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.holder import Holder
from tinker_ray.clients.options import settings_of
from tinker_ray.clients.ready import Ready
from tinker_ray.clients.session import ClientSession
from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinker_ray.clients.telemetry import Telemetry
    from tinker_ray.config import Settings
    from tinker_ray.engine.launcher import EmbeddedEngine

_SHARED: dict[str, ClientSession] = {}
"""By a digest of all settings: what goes by the same settings goes over the same connections."""
_LOCK = threading.Lock()


class RegistryClient(Ready):
    """Calls to the service that need no session, and open none.

    Attributes:
        holder: What is behind the client.
    """

    def __init__(
        self,
        _holder: Holder | ClientSession | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        if _holder is None:
            session = shared_session(settings_of(base_url=base_url, api_key=api_key))
        elif base_url is not None or api_key is not None:
            message = (
                f"{type(self).__name__} takes a holder, or base_url and api_key: a holder has its "
                "own address and credentials"
            )
            raise ConfigurationError(message)
        else:
            session = _holder.session if isinstance(_holder, Holder) else _holder
        self._session = session
        self.holder = Holder(session)

    @classmethod
    def of_settings(
        cls,
        settings: Settings,
        engine: Callable[[Settings], tuple[Settings, EmbeddedEngine | None]] | None = None,
    ) -> Self:
        """Make a client that goes by certain settings."""
        return cls(shared_session(settings, engine))

    def _shown(self) -> str:
        return repr(self._session.settings.base_url)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the address, without credentials."""
        return copies.registry_client, (type(self), copies.service_of(self._session))

    def get_telemetry(self) -> Telemetry | None:
        """Return what tells the service of events; None if it is not to be told."""
        return self._session.telemetry

    def _call(self, name: str, **arguments: Any) -> APIFuture[Any]:  # noqa: ANN401
        return APIFuture.start(self._run(name, arguments))

    async def _run(self, name: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        registry = await self._session.registry()
        return await registry.call(name, arguments)


def shared_session(
    settings: Settings,
    engine: Callable[[Settings], tuple[Settings, EmbeddedEngine | None]] | None = None,
) -> ClientSession:
    """Return the object behind all clients that go by the same settings; it opens no session."""
    key = _digest(settings)
    with _LOCK:
        session = _SHARED.get(key)
        if session is None or session.has_lost_engine:
            session = _SHARED[key] = ClientSession(settings, engine=engine)
            session.close_at_exit()
    return session


def _digest(settings: Settings) -> str:
    """Tell settings apart without keeping a credential as a key."""
    secrets = (settings.api_key, settings.credential_cmd, *(settings.cloudflare or ()))
    shown = [getattr(secret, "reveal", lambda: None)() for secret in secrets]
    parts = (repr(settings), shown, settings.default_headers, settings.default_query)
    return hashlib.sha256(repr(parts).encode()).hexdigest()
