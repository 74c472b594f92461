"""How an actor reaches the service: plain values that travel, and a link that each opens itself.

No secret travels. Every process reads the API key from its own environment; only an embedded engine
on the loopback interface has a key that everybody knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tinker_ray.config import EMBEDDED_API_KEY, Secret, Settings
from tinker_ray.core.connection import open_link
from tinker_ray.core.flags import ServerFlags
from tinker_ray.core.link import Link
from tinker_ray.core.session import SessionCore
from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinker_ray.budget import Budget
    from tinker_ray.config import EngineProcess

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def is_loopback(base_url: str) -> bool:
    """Tell whether an address means the machine of whoever reads it."""
    return (urlsplit(base_url).hostname or "") in _LOOPBACK


def check_reach(base_url: str, hosts: set[str]) -> None:
    """Refuse a service on a machine's loopback interface if there are other machines.

    Raises:
        ConfigurationError: That is so.
    """
    if is_loopback(base_url) and len(hosts) > 1:
        message = (
            f"the engine at {base_url} listens to its own machine only, and the Ray cluster has "
            f"{len(hosts)} machines: start `tinker-ray serve --host 0.0.0.0 --api-key KEY` on one "
            "that all can reach, set TINKER_API_KEY=KEY on every node and pass base_url="
            '"http://THAT_MACHINE:PORT"'
        )
        raise ConfigurationError(message)


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One session with one service, as actors are told of it.

    Attributes:
        base_url: The service.
        session_id: The session that everything belongs to.
        flags: What the service can do.
        embedded: It is an embedded engine on the loopback interface, which asks for no key.
        report: Whether the service is told of errors.
        engine: Its process, if this run's own launcher knows it.
        headers: Sent with every request; none that may be secret.
        budget: What its samples may cost.
    """

    base_url: str
    session_id: str
    flags: ServerFlags
    embedded: bool = False
    report: bool = False
    engine: EngineProcess | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    budget: Budget | None = None

    @classmethod
    def of(cls, settings: Settings, session_id: str, flags: ServerFlags) -> ServiceSpec:
        """Describe the service that a driver's settings name."""
        key = settings.api_key
        embedded = is_loopback(settings.base_url) and (
            key is None or key.reveal() == EMBEDDED_API_KEY
        )
        return cls(
            settings.base_url,
            session_id,
            flags,
            embedded,
            report=settings.report,
            engine=settings.engine,
            headers=settings.shareable_headers(),
            budget=settings.budget,
        )

    def settings(self) -> Settings:
        """Return the settings of this process for the service.

        Raises:
            ConfigurationError: This process has no credential.
        """
        settings = Settings.from_env(base_url=self.base_url, default_headers=self.headers)
        if self.embedded:
            return replace(settings, api_key=Secret(EMBEDDED_API_KEY), engine=self.engine)
        if settings.api_key is None and settings.credential_cmd is None:
            message = (
                "a worker process of the Ray cluster has no API key: set TINKER_API_KEY in the "
                "environment of every node before Ray is started there, or TINKER_CREDENTIAL_CMD; "
                "a key that was passed in code stays in the process that it was passed to"
            )
            raise ConfigurationError(message)
        return settings

    def open_link(self) -> Link:
        """Open connections of this process's own.

        Raises:
            ConfigurationError: This process has no credential.
        """
        return open_link(self.settings(), self.flags)

    def open_session(self, link: Link) -> SessionCore:
        """Return the session over a link."""
        return SessionCore(link, self.session_id)
