"""Credentials that tests make up."""

from __future__ import annotations

import base64
import json
from typing import Any

from tinker_ray.config import Secret


def jwt_of(**claims: Any) -> Secret:  # noqa: ANN401 - whatever a token may say
    """Make an unsigned JWT."""
    parts = [{"alg": "none"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return Secret(".".join([part.rstrip("=") for part in encoded] + ["signature"]))


class FixedIdentity:
    """A key, and perhaps a token that says whose it is."""

    def __init__(self, identity: Secret | None) -> None:
        self._identity = identity

    async def current(self) -> Secret:
        """Return a key."""
        return Secret("tml-key")

    async def replacement(self, rejected: Secret) -> Secret | None:  # noqa: ARG002 - the protocol
        """Have no other."""
        return None

    async def identity(self) -> Secret | None:
        """Return what was given."""
        return self._identity

    async def aclose(self) -> None:
        """Do nothing."""
