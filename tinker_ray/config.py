"""Settings of a process, read once and frozen: the only reader of ``os.environ`` in the project.

Knows nothing of Ray or HTTP. The API key is held apart from everything that is printed or pickled:
a process that receives settings from another one resolves its own key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tinker_ray.errors import ConfigurationError

Mode = Literal["auto", "local", "cluster"]
MODES: tuple[Mode, ...] = ("auto", "local", "cluster")

DEFAULT_BASE_URL = "https://tinker.thinkingmachines.dev/services/tinker-prod"
EMBEDDED_SCHEME = "embedded"
EMBEDDED_API_KEY = "tml-embedded"
"""The key that clients send to an embedded engine on the loopback interface; it asks for none."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A string that shows itself only through :meth:`reveal`; it refuses to be pickled."""

    _value: str = field(repr=False)

    def reveal(self) -> str:
        """Return the secret text."""
        return self._value

    def __str__(self) -> str:
        """Hide the text."""
        return "***"

    def __reduce__(self) -> str:
        """Refuse: secrets stay in the process that read them."""
        message = "a Secret cannot be pickled: let the receiving process read its own credentials"
        raise TypeError(message)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process was told: credentials, address, mode and folders.

    Attributes:
        api_key: ``TINKER_API_KEY``; None if unset.
        base_url: ``TINKER_BASE_URL`` without its trailing slash, else the hosted service;
            ``embedded`` or ``embedded:MODEL`` for an engine on this machine.
        mode: ``TINKER_RAY_MODE``.
        ray_address: ``RAY_ADDRESS``; None if unset.
        home: ``TINKER_RAY_HOME``, the folder of embedded engines and their checkpoints.
        tags: ``TINKER_TAGS`` split at commas.
        cloudflare: ``CLOUDFLARE_ACCESS_CLIENT_ID`` and its secret, if both are set.
    """

    api_key: Secret | None = None
    base_url: str = DEFAULT_BASE_URL
    mode: Mode = "auto"
    ray_address: str | None = None
    home: Path = field(default_factory=lambda: Path.home() / ".cache" / "tinker-ray")
    tags: tuple[str, ...] = ()
    cloudflare: tuple[str, Secret] | None = None

    @classmethod
    def from_env(cls, *, base_url: str | None = None, api_key: str | None = None) -> Settings:
        """Read the environment; arguments that are given and not empty win over it.

        Raises:
            ConfigurationError: ``TINKER_RAY_MODE`` has an unknown value.
        """
        key = api_key or os.environ.get("TINKER_API_KEY")
        home = os.environ.get("TINKER_RAY_HOME")
        settings = cls(
            api_key=Secret(key) if key else None,
            base_url=(base_url or os.environ.get("TINKER_BASE_URL") or DEFAULT_BASE_URL).rstrip(
                "/"
            ),
            mode=_mode(os.environ.get("TINKER_RAY_MODE") or "auto"),
            ray_address=os.environ.get("RAY_ADDRESS") or None,
            tags=tuple(tag for tag in os.environ.get("TINKER_TAGS", "").split(",") if tag),
            cloudflare=_cloudflare(),
        )
        return replace(settings, home=Path(home).expanduser()) if home else settings

    @property
    def embedded_model(self) -> str | None:
        """The MODEL of ``embedded:MODEL``, empty for ``embedded``; None for other addresses."""
        scheme, _, model = self.base_url.partition(":")
        return model if scheme == EMBEDDED_SCHEME else None

    def required_key(self) -> Secret:
        """Return the API key.

        Raises:
            ConfigurationError: There is none.
        """
        if self.api_key is None:
            message = (
                "no API key: set TINKER_API_KEY, pass api_key=…, "
                'or use base_url="embedded", which needs none'
            )
            raise ConfigurationError(message)
        return self.api_key


def _mode(value: str) -> Mode:
    for mode in MODES:
        if value == mode:
            return mode
    message = f"TINKER_RAY_MODE={value!r} is unknown: use one of {', '.join(MODES)}"
    raise ConfigurationError(message)


def _cloudflare() -> tuple[str, Secret] | None:
    client_id = os.environ.get("CLOUDFLARE_ACCESS_CLIENT_ID")
    secret = os.environ.get("CLOUDFLARE_ACCESS_CLIENT_SECRET")
    return (client_id, Secret(secret)) if client_id and secret else None


OTLP_HTTP = "http/protobuf"
"""The OTLP protocol that we speak."""


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What decides whether spans are exported, by the OpenTelemetry specification's variables.

    Attributes:
        exporters: The names in ``OTEL_TRACES_EXPORTER``; ``otlp`` if it is unset and an OTLP
            endpoint is set. Empty: no export.
        protocol: ``OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`` or ``OTEL_EXPORTER_OTLP_PROTOCOL``.
    """

    exporters: tuple[str, ...] = ()
    protocol: str = OTLP_HTTP

    @classmethod
    def from_env(cls) -> ExportSettings:
        """Read the environment."""
        otlp = "OTEL_EXPORTER_OTLP"
        endpoint = _first(f"{otlp}_TRACES_ENDPOINT", f"{otlp}_ENDPOINT")
        listed = _first("OTEL_TRACES_EXPORTER") or ("otlp" if endpoint else "")
        names = [name.strip().lower() for name in listed.split(",")]
        if _first("OTEL_SDK_DISABLED").lower() == "true":
            names = []
        return cls(
            exporters=tuple(name for name in dict.fromkeys(names) if name not in {"", "none"}),
            protocol=_first(f"{otlp}_TRACES_PROTOCOL", f"{otlp}_PROTOCOL") or OTLP_HTTP,
        )


def _first(*names: str) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")


def telemetry_environment() -> dict[str, str]:
    """The ``OTEL_*`` variables of this process, less those that may hold credentials."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("OTEL_") and not name.endswith("HEADERS")
    }


def engine_environment() -> dict[str, str]:
    """The environment for an embedded engine: all of ours but the service's credentials."""
    secrets = ("TINKER_API_KEY", "CLOUDFLARE_ACCESS_CLIENT_ID", "CLOUDFLARE_ACCESS_CLIENT_SECRET")
    return {name: value for name, value in os.environ.items() if name not in secrets}
