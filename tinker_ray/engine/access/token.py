"""JSON web tokens, signed with HS256, that stand for an API key for an hour.

Source: RFC 7519 and RFC 7515; only what this engine itself issues is understood.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass

from tinker_ray.engine.access.signature import (
    SignatureError,
    decode_base64url,
    encode_base64url,
)

LIFETIME_S = 3600
PREFIX = "eyJ"
ORGANIZATION = "engine"
_HEADER = encode_base64url(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a token says: whose it is, which key it stands for, and until when."""

    owner: str
    key_id: int | None
    expires_at: float


class TokenMint:
    """Issues and reads tokens.

    Args:
        secret: What they are signed with.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, claims: TokenClaims, now: float) -> str:
        """Make a token; its times are whole seconds."""
        payload = {
            "sub": claims.owner,
            "org_id": ORGANIZATION,
            "email": "",
            "iat": int(now),
            "exp": int(claims.expires_at),
            "key_id": claims.key_id,
        }
        signed = f"{_HEADER}.{encode_base64url(json.dumps(payload).encode())}"
        return f"{signed}.{encode_base64url(self._mac(signed))}"

    def read(self, token: str) -> TokenClaims:
        """Return the claims of a token, which may have expired.

        Raises:
            SignatureError: It was not issued here.
        """
        signed, _, signature = token.rpartition(".")
        try:
            given = decode_base64url(signature)
        except ValueError as error:
            raise SignatureError("is not a token") from error
        if not hmac.compare_digest(given, self._mac(signed)):
            raise SignatureError("was not issued by this engine")
        payload = json.loads(decode_base64url(signed.partition(".")[2]))
        return TokenClaims(payload["sub"], payload["key_id"], payload["exp"])

    def _mac(self, signed: str) -> bytes:
        return hmac.new(self._secret, signed.encode(), hashlib.sha256).digest()
