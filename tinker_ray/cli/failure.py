"""What the command line says when something goes wrong: one message, and what to do about it.

Invariant: a user's mistake gives no traceback.
"""

from __future__ import annotations

from tinker_ray import errors

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


class CommandError(errors.TinkerError):
    """A command that cannot do what it was asked.

    Attributes:
        message: What is wrong.
        fix: What to do about it.
    """

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


_KINDS: tuple[tuple[type[errors.TinkerError], str, str | None], ...] = (
    (errors.NotFoundError, "not found", None),
    (
        errors.AuthenticationError,
        "authentication failed",
        "Check TINKER_API_KEY, or store a key with: tinker-ray auth login",
    ),
    (errors.BillingError, "billing issue", "Check that billing is set up for your account."),
    (
        errors.PermissionDeniedError,
        "permission denied",
        "This key may not do that; tinker-ray auth whoami shows whose it is.",
    ),
    (errors.BadRequestError, "invalid request", None),
    (errors.UnprocessableEntityError, "invalid request", None),
    (errors.RateLimitError, "rate limit exceeded", "Wait a moment, then try again."),
    (errors.InternalServerError, "the service failed", "Try again later."),
    (errors.APITimeoutError, "the service did not answer in time", "Try again later."),
    (
        errors.APIConnectionError,
        "the service cannot be reached",
        "Check the network, and the address in --base-url or TINKER_BASE_URL.",
    ),
)


def explain(error: Exception) -> str:
    """Word an error for a person: a line, then what to do where that is known."""
    if isinstance(error, CommandError):
        return _lines(error.message, error.fix)
    for kind, headline, fix in _KINDS:
        if isinstance(error, kind):
            return _lines(f"{headline}: {error}", fix)
    return _lines(str(error) or type(error).__name__, None)


def _lines(message: str, fix: str | None) -> str:
    return f"Error: {message}" + (f"\n{fix}" if fix else "")
