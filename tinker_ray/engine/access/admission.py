"""From the credential of a request to its caller.

Knows nothing of HTTP but the header that tells a client to renew its token.

Invariant: an engine with keys lets nobody in but who shows one of them, or a token for one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_ray.engine.access import token
from tinker_ray.engine.access.caller import LOCAL_CALLER, Caller
from tinker_ray.engine.access.signature import SignatureError
from tinker_ray.engine.access.token import TokenClaims
from tinker_ray.engine.serving.rejection import RequestRejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinker_ray.engine.access.key_ring import KeyRing
    from tinker_ray.engine.access.token import TokenMint

_FIELD = "X-API-Key"
_UNAUTHORIZED = 401


class Admission:
    """Lets callers in.

    Args:
        keys: The keys that are let in.
        mint: Issues and reads tokens.
        now: The wall clock.
    """

    def __init__(self, keys: KeyRing, mint: TokenMint, now: Callable[[], float]) -> None:
        self._keys = keys
        self._mint = mint
        self._now = now

    @property
    def revoked_owners(self) -> list[str]:
        """Whose keys the engine was started with, and lets in no more."""
        return [caller.owner for caller in self._keys.revoked]

    def admit(self, credential: bytes | None) -> Caller:
        """Return who shows a credential.

        Raises:
            RequestRejected: A key is asked for and this is none, or it is a token that expired.
        """
        given = credential or b""
        if (caller := self._keys.find(given)) is not None:
            return caller
        claims = self._claims(given)
        if claims is not None and claims.expires_at <= self._now():
            raise _invalid_token("the token has expired")
        if self._keys.is_open:
            return LOCAL_CALLER
        if given.startswith(token.PREFIX.encode()):
            caller = None if claims is None else self._keys.by_id(claims.key_id)
            if caller is None:
                raise _invalid_token("the token is not, or no longer, one of this engine")
            return caller
        message = "is missing or wrong"
        raise RequestRejected(message, field=_FIELD, status_code=_UNAUTHORIZED)

    def issue(self, credential: bytes | None) -> str:
        """Exchange a credential for a token; one for a token ends with that.

        Raises:
            RequestRejected: The credential is not let in.
        """
        caller = self.admit(credential)
        now = self._now()
        claims = self._claims(credential or b"")
        expires_at = now + token.LIFETIME_S if claims is None else claims.expires_at
        return self._mint.issue(TokenClaims(caller.owner, caller.key_id, expires_at), now)

    def reader(self, weights_access_token: str) -> str:
        """Return whose weights a token lets read: it is a key or a token of their owner.

        Raises:
            RequestRejected: It is neither.
        """
        try:
            return self.admit(weights_access_token.encode(errors="replace")).owner
        except RequestRejected as error:
            message = "is neither an API key nor a token of this engine"
            raise RequestRejected(message, field="weights_access_token", status_code=403) from error

    def revoke(self, caller: Caller) -> None:
        """Let the key of a caller in no more.

        Raises:
            RequestRejected: The caller has none.
        """
        if caller.key_id is None:
            raise RequestRejected("this engine asks for no key: there is none to delete")
        self._keys.revoke(caller.key_id, self._now())

    def _claims(self, credential: bytes) -> TokenClaims | None:
        text = credential.decode("latin-1")
        if not text.startswith(token.PREFIX):
            return None
        try:
            return self._mint.read(text)
        except SignatureError:
            return None


def _invalid_token(message: str) -> RequestRejected:
    """Make the rejection that tells a client to exchange its credential again."""
    challenge = f'Bearer error="invalid_token", error_description="{message}"'
    return RequestRejected(
        message,
        field=_FIELD,
        status_code=_UNAUTHORIZED,
        headers={"WWW-Authenticate": challenge},
    )
