"""What authenticates requests: a key, what a command prints, or a token that either is good for.

A transport asks for the credential of each request. Knows nothing of requests. Invariant: a
credential is never shown, and goes to nobody but the service.

The order of the sources is the service's own SDK's: a JWT that was given as key; the command, where
the service insists on it; the key; the command. Keys of the hosted service begin with ``tml-``;
another server may use any.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Protocol

from tinker_ray.config import DEFAULT_BASE_URL, NO_KEY, Secret
from tinker_ray.errors import APIConnectionError, ConfigurationError
from tinker_ray.transport import jwt

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinker_ray.config import Settings

KEY_PREFIX = "tml-"
COMMAND_TIMEOUT_S = 60.0
REUSE_S = 300.0
"""How long an opaque credential of a command is used again, where it is not exchanged."""


class CredentialUnavailableError(APIConnectionError):
    """A credential could not be had for now, after all repetitions of its own."""


class Credentials(Protocol):
    """Where a transport gets its credential from."""

    async def current(self) -> Secret:
        """Return the credential for the next request.

        Raises:
            ConfigurationError: There is none that could work.
            CredentialUnavailableError: There is none for now.
            APIStatusError: The service refused to give one.
        """
        ...

    async def replacement(self, rejected: Secret) -> Secret | None:
        """Return another credential than one that the service rejected; None if there is none.

        Raises:
            ConfigurationError: As for :meth:`current`.
            CredentialUnavailableError: As for :meth:`current`.
            APIStatusError: As for :meth:`current`.
        """
        ...

    async def identity(self) -> Secret | None:
        """Return a JWT whose claims say who this is; None if there is none."""
        ...

    async def aclose(self) -> None:
        """End what runs in the background; idempotent."""
        ...


class ApiKey:
    """A key, or a JWT in its place, that never changes.

    Raises:
        ConfigurationError: It cannot be in a header.
    """

    def __init__(self, key: Secret, *, wall: Callable[[], float] = time.time) -> None:
        check_header(key, "the API key")
        self._key = key
        self._wall = wall

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "ApiKey(***)"

    async def current(self) -> Secret:
        """Return the key.

        Raises:
            ConfigurationError: It is a JWT that has expired.
        """
        if jwt.is_jwt(self._key) and self._wall() >= jwt.expiry(self._key):
            message = (
                "the JWT that was given as API key has expired: give a new one, or set "
                "TINKER_CREDENTIAL_CMD to a command that prints one"
            )
            raise ConfigurationError(message)
        return self._key

    async def replacement(self, rejected: Secret) -> Secret | None:  # noqa: ARG002 - the protocol
        """Return None: there is no other."""
        return None

    async def identity(self) -> Secret | None:
        """Return the key if it is a JWT that the service made."""
        if not jwt.is_jwt(self._key):
            return None
        with contextlib.suppress(ConfigurationError):
            if str(jwt.claims(self._key).get("iss", "")).startswith("passport-"):
                return self._key
        return None

    async def aclose(self) -> None:
        """Do nothing."""


class CommandCredential:
    """What a shell command prints; callers who wait at the same time share one run of it.

    Args:
        command: For the shell.
        timeout_s: How long it may take.
        reuse_s: How long what it printed is used again, unless that is a JWT, whose end is known.
            0 runs the command each time.
        wall: Unix time in seconds.
    """

    def __init__(
        self,
        command: Secret,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
        reuse_s: float = 0.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._command = command
        self._timeout_s = timeout_s
        self._reuse_s = reuse_s
        self._wall = wall
        self._running: asyncio.Task[Secret] | None = None
        self._printed: Secret | None = None
        self._good_until = 0.0

    def __repr__(self) -> str:
        """Show nothing of the command or of what it printed."""
        return "CommandCredential(***)"

    async def current(self) -> Secret:
        """Return what the command prints.

        Raises:
            ConfigurationError: It prints nothing, or what no header may have, or an expired JWT, or
                does not end.
        """
        if self._printed is not None and self._wall() < self._good_until:
            return self._printed
        if self._running is None:
            self._running = asyncio.create_task(self._run())
            self._running.add_done_callback(self._ended)
        return await asyncio.shield(self._running)

    async def replacement(self, rejected: Secret) -> Secret | None:
        """Return what the command prints now, if that is another credential."""
        if self._printed == rejected:
            self._printed = None
        printed = await self.current()
        return None if printed == rejected else printed

    async def identity(self) -> Secret | None:
        """Return None: what the command prints says nothing that we could check."""
        return None

    async def aclose(self) -> None:
        """End a command that runs; idempotent."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Secret]) -> None:
        self._running = None
        if not task.cancelled():
            task.exception()  # seen, even if all who waited for it are gone

    async def _run(self) -> Secret:
        printed = Secret(await _output(self._command.reveal(), self._timeout_s))
        check_header(printed, "what TINKER_CREDENTIAL_CMD printed")
        expires_at = jwt.expiry(printed) if jwt.is_jwt(printed) else None
        now = self._wall()
        if expires_at is not None and now >= expires_at:
            raise ConfigurationError("TINKER_CREDENTIAL_CMD printed a JWT that has expired")
        if self._reuse_s:
            self._printed = printed
            known_end = None if expires_at is None else expires_at - jwt.REFRESH_BEFORE_S
            self._good_until = now + self._reuse_s if known_end is None else known_end
        return printed


async def _output(command: str, timeout_s: float) -> str:
    """Run a shell command and return what it printed.

    Raises:
        ConfigurationError: It printed nothing, or did not end in time.
    """
    process = await asyncio.create_subprocess_shell(
        command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        # Not shown: nobody knows what is in it. Run by hand, the command shows it.
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # so that what the shell starts can be ended with it
    )
    try:
        async with asyncio.timeout(timeout_s):
            stdout, _ = await process.communicate()
    except TimeoutError:
        message = f"TINKER_CREDENTIAL_CMD did not end within {timeout_s:g} s"
        raise ConfigurationError(message) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    printed = stdout.decode(errors="replace").strip()
    if not printed:
        message = f"TINKER_CREDENTIAL_CMD printed nothing; its exit code was {process.returncode}"
        raise ConfigurationError(message)
    return printed


def resolve(
    settings: Settings, *, command_only: bool = False, exchanged: bool = False
) -> Credentials:
    """Choose where the credential comes from.

    Args:
        settings: Of this process.
        command_only: The service accepts no stored key, only what a command prints (or a JWT).
        exchanged: The credential is only exchanged for tokens, so that it is asked for rarely.

    Raises:
        ConfigurationError: There is no credential, or it cannot be one of the hosted service.
    """
    key, command = settings.api_key, settings.credential_cmd
    if key is not None and jwt.is_jwt(key):
        return ApiKey(key)
    fitting = key is not None and _fits(key, settings.base_url)
    if command is not None and (command_only or not fitting):
        return CommandCredential(command, reuse_s=0.0 if exchanged else REUSE_S)
    if command_only:
        message = (
            "your organization accepts only credentials of a command: set TINKER_CREDENTIAL_CMD "
            "to one that prints a credential"
        )
        raise ConfigurationError(message)
    if key is None:
        raise ConfigurationError(NO_KEY)
    if not fitting:
        message = f"an API key of {DEFAULT_BASE_URL} begins with {KEY_PREFIX!r}; this one does not"
        raise ConfigurationError(message)
    return ApiKey(key)


def _fits(key: Secret, base_url: str) -> bool:
    return base_url != DEFAULT_BASE_URL or key.reveal().startswith(KEY_PREFIX)


def check_header(secret: Secret, name: str) -> None:
    """Refuse a secret that cannot be the value of a header.

    Raises:
        ConfigurationError: There is white space around it, or characters that no header may have.
    """
    text = secret.reveal()
    if not (text.isascii() and text.isprintable() and text == text.strip()):
        message = f"{name} has white space around it or characters that no header may have"
        raise ConfigurationError(message)
