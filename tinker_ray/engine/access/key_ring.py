"""The API keys of an engine, and who owns what is made with each.

Keys are held as hashes and compared in constant time. Knows nothing of requests.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.engine.access.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_ray.engine.access.api_key import ApiKey
    from tinker_ray.engine.store.table.key import KeyTable


@dataclass(slots=True)
class _Entry:
    digest: bytes
    caller: Caller
    revoked: bool


class KeyRing:
    """The keys of an engine; no keys let everybody in.

    Args:
        keys: The keys.
        table: Where their hashes are kept, and which of them were revoked.
        now: The time in seconds.
    """

    def __init__(self, keys: Sequence[ApiKey], table: KeyTable, now: float) -> None:
        self._table = table
        self._entries: list[_Entry] = []
        for key in keys:
            row = table.register(key.key_hash, key.owner_name, now)
            caller = Caller(key.owner_name, row.key_id, key.project_id)
            self._entries.append(_Entry(bytes.fromhex(row.key_hash), caller, row.revoked))

    @property
    def is_open(self) -> bool:
        """Whether the engine asks for no key."""
        return not self._entries

    @property
    def revoked(self) -> list[Caller]:
        """The keys that were revoked by those who held them."""
        return [entry.caller for entry in self._entries if entry.revoked]

    def find(self, key: bytes) -> Caller | None:
        """Return whose a key is; None if it is unknown or revoked."""
        digest = hashlib.sha256(key).digest()
        found = None
        for entry in self._entries:  # all of them: the time tells nothing
            if hmac.compare_digest(entry.digest, digest) and not entry.revoked:
                found = entry.caller
        return found

    def by_id(self, key_id: int | None) -> Caller | None:
        """Return whose a key is; None if it is unknown or revoked."""
        for entry in self._entries:
            if entry.caller.key_id == key_id and not entry.revoked:
                return entry.caller
        return None

    def revoke(self, key_id: int, now: float) -> None:
        """Let a key in no more, after a restart neither."""
        self._table.revoke(key_id, now)
        for entry in self._entries:
            if entry.caller.key_id == key_id:
                entry.revoked = True
