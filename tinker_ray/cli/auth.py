"""``tinker-ray auth``: whose key is used, and storing one so that it need not be given."""

from __future__ import annotations

import socket
from urllib.parse import quote, urlencode

import typer

from tinker_ray.cli.command import add
from tinker_ray.cli.credential import CredentialFile, StoredKey
from tinker_ray.cli.failure import CommandError
from tinker_ray.cli.terminal import Terminal, properties
from tinker_ray.cli.wording import text, whether
from tinker_ray.config import DEFAULT_BASE_URL, Settings
from tinker_ray.errors import ConfigurationError, TinkerError, UnfulfilledError

CONSOLE = "https://tinker.thinkingmachines.ai/keys"
"""Where keys of the hosted service are made and deleted."""
_LABELS = {
    "email": "Email",
    "user_urn": "User",
    "org_urn": "Organization",
    "organization": "Organization",
    "key_name": "API key",
}
ANSWER_S = 15.0
"""How long ``auth status`` waits for the service."""


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Credentials.", no_args_is_help=True)
    add(group, status, "status")
    add(group, whoami, "whoami")
    add(group, login, "login")
    add(group, logout, "logout")
    app.add_typer(group, name="auth")


def status(terminal: Terminal) -> None:
    """Tell whether there is a credential, and whether the service accepts it."""
    settings = Settings.from_env(base_url=terminal.base_url)
    if settings.embedded_model is not None:
        raise CommandError(
            "an embedded engine asks for no credentials", "--base-url names another service."
        )
    missing = _missing(settings)
    problem = missing or _refusal(terminal)
    value = {"credentials_available": missing is None, "accessible": problem is None}
    pairs = [
        ("Credentials available", whether(missing is None)),
        ("Service accessible", whether(problem is None)),
    ]
    terminal.show(value, properties(settings.base_url, pairs))
    if problem is not None:
        raise problem


def _missing(settings: Settings) -> TinkerError | None:
    from tinker_ray.transport.auth import resolve

    try:
        resolve(settings)
    except ConfigurationError as error:
        return error
    return None


def _refusal(terminal: Terminal) -> TinkerError | None:
    try:
        terminal.clients.probe(terminal.base_url, timeout_s=ANSWER_S)
    except TinkerError as error:
        return error
    return None


def whoami(terminal: Terminal) -> None:
    """Show the user and the organization of the credential in use."""
    try:
        value = terminal.rest().whoami().result().model_dump(mode="json")
    except UnfulfilledError as unknown:  # a plain key: the service may know it by itself
        try:
            record = terminal.clients.describe_key(terminal.base_url, None)
        except TinkerError:
            raise unknown from None
        value = {
            "email": record.details.user_details.email,
            "organization": record.details.org_details.name,
            "key_name": record.name,
        }
    pairs = [(_LABELS[name], text(each)) for name, each in value.items()]
    terminal.show(value, properties("Identity", pairs))


def login(terminal: Terminal) -> None:
    """Store an API key, once the service has recognised it; it is asked for, not an argument."""
    file = CredentialFile(terminal.credentials)
    if file.default() is not None:
        raise CommandError("a key is stored already", "Forget it first: tinker-ray auth logout")
    if Settings.from_env(base_url=terminal.base_url).base_url == DEFAULT_BASE_URL:
        name = f"tinker-cli-{socket.gethostname().partition('.')[0] or 'unknown'}"
        query = urlencode({"new_key": "true", "key_name": name})
        terminal.note(f"Make an API key at {CONSOLE}?{query}")
    key = typer.prompt("API key", hide_input=True, err=True).strip()
    if not key:
        raise CommandError("the key is empty")
    record = terminal.clients.describe_key(terminal.base_url, key)
    key_id = str(record.key_id)
    details = record.details.model_dump(mode="json")
    file.store(StoredKey(key_id, key, record.name, note=record.note, details=details))
    whose = f"{record.details.user_details.email} ({record.details.org_details.name})"
    terminal.done(
        f"Logged in as {whose}; the API key {record.name!r} is stored in {file.path}",
        {"key_id": key_id, "name": record.name, "path": str(file.path)},
    )


def logout(terminal: Terminal) -> None:
    """Forget the stored API key; one that was made for this machine alone is revoked too."""
    file = CredentialFile(terminal.credentials)
    stored = file.default()
    if stored is None:
        raise CommandError("no key is stored", "There is nothing to log out from.")
    where = f"{CONSOLE}/{quote(stored.key_id, safe='')}"
    problem = _revoke(terminal, stored)
    file.remove(stored.key_id)
    if problem is not None:
        raise CommandError(
            f"the key {stored.name!r} was forgotten here but could not be revoked: {problem}",
            f"Delete it by hand ({text(stored.organization)}): {where}",
        )
    revoked = stored.kind == "generated"
    state = "revoked" if revoked else f"still valid; delete it at {where}"
    terminal.done(
        f"Forgot the key {stored.name!r}, which is {state}",
        {"key_id": stored.key_id, "name": stored.name, "revoked": revoked},
    )


def _revoke(terminal: Terminal, stored: StoredKey) -> TinkerError | None:
    """Revoke a key that nobody else has; return why that failed."""
    if stored.kind == "generated":
        try:
            terminal.clients.revoke_key(terminal.base_url, stored.key)
        except TinkerError as error:
            return error
    return None
