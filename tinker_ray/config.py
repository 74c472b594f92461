"""Settings of a process, read once and frozen: the only reader of ``os.environ`` in the project.

Knows nothing of Ray or HTTP. The API key is held apart from everything that is printed or pickled:
a process that receives settings from another one resolves its own key.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from tinker_ray.errors import ConfigurationError
from tinker_ray.sampler_pool import PoolSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinker_ray.budget import Budget

Mode = Literal["auto", "local", "cluster"]
MODES: tuple[Mode, ...] = ("auto", "local", "cluster")

DEFAULT_BASE_URL = "https://tinker.thinkingmachines.dev/services/tinker-prod"
EMBEDDED_SCHEME = "embedded"
EMBEDDED_API_KEY = "tml-embedded"
"""The key that clients send to an embedded engine on the loopback interface; it asks for none."""
ENGINE_LOG = "engine.log"
"""In the folder of an embedded engine: what it prints."""
CREDENTIALS = Path("~/.tinker/credentials.json")
"""Where ``tinker auth login`` stores keys."""
NO_KEY = (
    "no API key: set TINKER_API_KEY, pass api_key=…, store one with `tinker-ray auth login`, "
    'or use base_url="embedded", which needs none'
)


_SECRET_HEADER = re.compile(
    r"auth|key|token|secret|cookie|credential|password|signature", re.IGNORECASE
)


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
class EngineProcess:
    """An embedded engine as its users know it.

    Attributes:
        pid: Its process, on this machine.
        folder: Where its launcher keeps its log and its data.
    """

    pid: int
    folder: Path

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder / ENGINE_LOG


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process was told: credentials, address, mode and folders.

    Attributes:
        api_key: The given one, else ``TINKER_API_KEY``, else, if there is no credential command,
            the default key that ``tinker auth login`` stored; None if there is none.
        base_url: ``TINKER_BASE_URL`` without its trailing slash, else the hosted service;
            ``embedded`` or ``embedded:MODEL`` for an engine on this machine.
        mode: ``TINKER_RAY_MODE``.
        ray_address: ``RAY_ADDRESS``; None if unset.
        home: ``TINKER_RAY_HOME``, the folder of embedded engines and their checkpoints.
        tags: ``TINKER_TAGS`` split at commas.
        cloudflare: ``CLOUDFLARE_ACCESS_CLIENT_ID`` and its secret, if both are set.
        credential_cmd: ``TINKER_CREDENTIAL_CMD``, a shell command that prints a credential.
        project_id: ``TINKER_PROJECT_ID``: where sessions and copies of weights belong.
        report: ``TINKER_TELEMETRY``: whether the service is told of errors.
        default_headers: Sent with every request, instead of ours of the same name. Never shown, as
            there may be secrets among them.
        default_query: Added to the query of every request. Never shown, for the same reason.
        timeout_s: For requests without a timeout of their own; None takes 60 s.
        max_retries: Quick repetitions of a request; None takes 10.
        engine: The process behind ``base_url`` if that is an embedded engine.
        pool: The samplers, on a cluster.
        budget: What the samples of a session may cost.
    """

    api_key: Secret | None = None
    base_url: str = DEFAULT_BASE_URL
    mode: Mode = "auto"
    ray_address: str | None = None
    home: Path = field(default_factory=lambda: Path.home() / ".cache" / "tinker-ray")
    tags: tuple[str, ...] = ()
    cloudflare: tuple[str, Secret] | None = None
    credential_cmd: Secret | None = None
    project_id: str | None = None
    report: bool = True
    default_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    default_query: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float | None = None
    max_retries: int | None = None
    engine: EngineProcess | None = None
    pool: PoolSettings = field(default_factory=PoolSettings)
    budget: Budget | None = None

    @classmethod
    def from_env(  # noqa: PLR0913 - upstream's options of a client
        cls,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        project_id: str | None = None,
        default_headers: Mapping[str, str] | None = None,
        default_headers_overrides: Mapping[str, str] | None = None,
        default_query: Mapping[str, object] | None = None,
        timeout_s: float | None = None,
        max_retries: int | None = None,
    ) -> Settings:
        """Read the environment; arguments that are given and not empty win over it.

        Args:
            base_url: See the attributes, as for the others.
            api_key: Of the service.
            project_id: For sessions and copies of weights.
            default_headers: For every request.
            default_headers_overrides: Win over ``default_headers``.
            default_query: For every request; values become strings.
            timeout_s: Seconds.
            max_retries: Of one request.

        Raises:
            ConfigurationError: ``TINKER_RAY_MODE`` has an unknown value, an argument is out of its
                range, or the stored credentials cannot be read.
        """
        address = (base_url or os.environ.get("TINKER_BASE_URL") or DEFAULT_BASE_URL).rstrip("/")
        home = os.environ.get("TINKER_RAY_HOME")
        command = os.environ.get("TINKER_CREDENTIAL_CMD")
        settings = cls(
            base_url=address,
            mode=_mode(os.environ.get("TINKER_RAY_MODE") or "auto"),
            ray_address=os.environ.get("RAY_ADDRESS") or None,
            tags=tuple(tag for tag in os.environ.get("TINKER_TAGS", "").split(",") if tag),
            cloudflare=_cloudflare(),
            credential_cmd=Secret(command) if command else None,
            project_id=project_id or os.environ.get("TINKER_PROJECT_ID") or None,
            report=os.environ.get("TINKER_TELEMETRY", "1").lower() in {"1", "true", "yes", "on"},
            default_headers={**(default_headers or {}), **(default_headers_overrides or {})},
            default_query={key: str(value) for key, value in (default_query or {}).items()},
            timeout_s=_positive("timeout", timeout_s),
            max_retries=_not_negative("max_retries", max_retries),
            pool=_pool(),
        )
        key = api_key or os.environ.get("TINKER_API_KEY")
        if not key and not command and settings.embedded_model is None:
            key = stored_key(CREDENTIALS.expanduser())
        if key:
            settings = replace(settings, api_key=Secret(key))
        return replace(settings, home=Path(home).expanduser()) if home else settings

    def shareable_headers(self) -> dict[str, str]:
        """Return the default headers that other processes may be told: none that may be secret."""
        return {
            name: value
            for name, value in self.default_headers.items()
            if not _SECRET_HEADER.search(name)
        }

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
            raise ConfigurationError(NO_KEY)
        return self.api_key


def stored_key(path: Path) -> str | None:
    """Return the default key of a credentials file; None if there is no file, or none in it.

    Raises:
        ConfigurationError: The file cannot be read or understood.
    """
    try:
        stored = json.loads(path.read_bytes())
        default = stored.get("default")
        record = stored["keys"].get(default) if default is not None else None
        return None if record is None else str(record["key"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # Without the words of the error, which may quote the file.
        message = (
            f"{path} cannot be read as stored credentials ({type(error).__name__}): mend or remove "
            "it, set TINKER_API_KEY or pass api_key=…"
        )
        raise ConfigurationError(message) from None


def _positive(name: str, value: float | None) -> float | None:
    if value is not None and not value > 0:
        message = f"{name}={value!r} must be a positive number of seconds"
        raise ConfigurationError(message)
    return value


def _not_negative(name: str, value: int | None) -> int | None:
    if value is not None and value < 0:
        message = f"{name}={value!r} must not be negative"
        raise ConfigurationError(message)
    return value


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, "").strip()
    try:
        return float(text) if text else default
    except ValueError:
        message = f"{variable}={text!r} is no number"
        raise ConfigurationError(message) from None


def _pool() -> PoolSettings:
    least = _number("TINKER_RAY_MIN_SAMPLERS", 1)
    return PoolSettings(
        min_samplers=int(least),
        max_samplers=int(_number("TINKER_RAY_MAX_SAMPLERS", max(8, least))),
        hedge_after_s=_number("TINKER_RAY_HEDGE_AFTER_S", 0) or None,
    )


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


def log_level() -> int | None:
    """The level that ``TINKER_LOG`` asks for, ``debug`` or ``info``; None for anything else."""
    levels = {"debug": logging.DEBUG, "info": logging.INFO}
    return levels.get(os.environ.get("TINKER_LOG", "").strip().lower())


def telemetry_environment() -> dict[str, str]:
    """What this process tells of itself, for processes that are to do the same.

    ``TINKER_LOG`` and the ``OTEL_*`` variables, less those that may hold credentials.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name == "TINKER_LOG" or (name.startswith("OTEL_") and not name.endswith("HEADERS"))
    }


SECRET_VARIABLES = (
    "TINKER_API_KEY",
    "TINKER_CREDENTIAL_CMD",
    "CLOUDFLARE_ACCESS_CLIENT_ID",
    "CLOUDFLARE_ACCESS_CLIENT_SECRET",
)
"""The service's credentials."""
_KEY = re.compile(r"\b(tml|eyJ)[-_A-Za-z0-9.]{16,}")
"""What the service's keys and tokens look like."""


def engine_environment() -> dict[str, str]:
    """The environment for an embedded engine: all of ours but the service's credentials."""
    return {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}


def check_environment(variables: Mapping[str, str]) -> None:
    """Refuse variables for other processes that hold a credential of the service.

    They would be shown to everybody who may look at the cluster.

    Raises:
        ConfigurationError: One does, by its name or by the looks of its value.
    """
    for name, value in variables.items():
        if name in SECRET_VARIABLES or _KEY.search(str(value)):
            message = (
                f"env_vars must not have {name}: a runtime environment is shown on Ray's dashboard "
                "and in its logs. Set it on every node instead, before `ray start`, or let a setup "
                "hook fetch it"
            )
            raise ConfigurationError(message)


def proxy_for(origin: str) -> str | None:
    """The proxy that ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` name for an address."""
    from urllib.request import getproxies, proxy_bypass

    parsed = urlsplit(origin)
    if proxy_bypass(parsed.hostname or ""):
        return None
    return getproxies().get(parsed.scheme)
