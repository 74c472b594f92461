"""Whether this process has credentials, and whether they work: upstream's ``tinker.auth``."""

from __future__ import annotations

from tinker_ray.config import Settings
from tinker_ray.errors import TinkerError

__all__ = ["get_tinker_token", "raise_if_tinker_not_accessible", "tinker_has_credentials"]


def get_tinker_token() -> str | None:
    """Return the API key that a client would use; None if there is none that is known as it is.

    Asks nobody: a credential command is not run.
    """
    try:
        key = Settings.from_env().api_key
    except (TinkerError, OSError, ValueError):
        return None
    return None if key is None else key.reveal()


def tinker_has_credentials() -> bool:
    """Tell whether a client would find a credential; a command that prints one counts unseen."""
    from tinker_ray.transport.auth import resolve

    try:
        resolve(Settings.from_env())
    except (TinkerError, OSError, ValueError):
        return False
    return True


def raise_if_tinker_not_accessible() -> None:
    """Ask the service once which models it offers, without repeating what fails.

    Raises:
        ConfigurationError: There is no credential.
        AuthenticationError: The service refuses the credential.
        BillingError: The account is not set up for use.
        APIConnectionError: There was no answer.
        TinkerError: Anything else.
    """
    from tinker_ray.clients.access import check_access

    check_access(Settings.from_env())
