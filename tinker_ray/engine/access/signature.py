"""Text that only this data folder can have written: a JSON object, its purpose, an expiry.

Knows nothing of what the objects mean.

Invariant: what was signed for one purpose is refused for every other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class SignatureError(Exception):
    """A text that was not signed here, or for something else, or whose time is over."""


class Signer:
    """Signs and verifies.

    Args:
        secret: The secret of the data folder.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, purpose: str, claims: Mapping[str, Any], expires_at: float) -> str:
        """Return ``claims`` as text that can stand in a URL."""
        payload = encode_base64url(json.dumps({**claims, "exp": expires_at}).encode())
        return f"{payload}.{encode_base64url(self._mac(purpose, payload))}"

    def verify(self, purpose: str, text: str, now: float) -> dict[str, Any]:
        """Return the claims of a signed text.

        Raises:
            SignatureError: It is not one for this purpose, or too old.
        """
        payload, _, signature = text.partition(".")
        try:
            given = decode_base64url(signature)
        except ValueError as error:
            raise SignatureError("is not signed") from error
        if not hmac.compare_digest(given, self._mac(purpose, payload)):
            raise SignatureError("has a wrong signature")
        claims: dict[str, Any] = json.loads(decode_base64url(payload))
        if claims["exp"] <= now:
            raise SignatureError("has expired")
        return claims

    def derive(self, label: str) -> bytes:
        """Return a secret of its own for another way of signing."""
        return hmac.new(self._secret, f"derive:{label}".encode(), hashlib.sha256).digest()

    def _mac(self, purpose: str, payload: str) -> bytes:
        message = f"sign:{purpose}:{payload}".encode(errors="surrogatepass")
        return hmac.new(self._secret, message, hashlib.sha256).digest()


def encode_base64url(content: bytes) -> str:
    """Encode without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decode_base64url(text: str) -> bytes:
    """Decode text without padding.

    Raises:
        ValueError: It is something else.
    """
    try:
        content = text.encode("ascii")
        return base64.b64decode(content + b"=" * (-len(content) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"not base64url: {error}") from error
