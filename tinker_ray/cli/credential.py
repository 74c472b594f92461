"""The file of stored API keys, upstream's: ``~/.tinker/credentials.json``.

Written here, read by :mod:`tinker_ray.config` too. Invariant: only its owner can read the file at
any moment, and it is whole at any moment: it is written aside and moved into place.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tinker_ray.cli.failure import CommandError

VERSION = 1
_DIRECTORY_MODE = 0o700


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key and what is known of it.

    Attributes:
        key_id: Under which it is stored.
        key: The secret; never shown.
        name: Its name at the service.
        kind: ``manual`` if its user made it, ``generated`` if it was made for a machine's command
            line alone.
        note: Its user's words.
        details: Whose it is, in the service's words.
    """

    key_id: str
    key: str = field(repr=False)
    name: str
    kind: Literal["manual", "generated"] = "manual"
    note: str | None = None
    details: dict[str, Any] | None = None

    @property
    def organization(self) -> str | None:
        """The name of its organization."""
        return ((self.details or {}).get("org_details") or {}).get("name")

    @property
    def email(self) -> str | None:
        """The address of its user."""
        return ((self.details or {}).get("user_details") or {}).get("email")


class CredentialFile:
    """Stored keys, one of which is the default. Keys of other versions of the file stay."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def default(self) -> StoredKey | None:
        """Return the key that is used when no other is given.

        Raises:
            CommandError: The file cannot be understood.
        """
        content = self._read()
        key_id = content["default"]
        record = content["keys"].get(key_id) if key_id is not None else None
        if record is None:
            return None
        return StoredKey(
            key_id,
            record["key"],
            record.get("name", key_id),
            record.get("type", "manual"),
            record.get("note"),
            record.get("details"),
        )

    def store(self, key: StoredKey) -> None:
        """Store a key and make it the default.

        Raises:
            CommandError: The file cannot be understood.
        """
        content = self._read()
        record: dict[str, Any] = {"type": key.kind, "key": key.key, "name": key.name}
        more = {"note": key.note, "details": key.details}
        record |= {name: value for name, value in more.items() if value is not None}
        self._write(
            content | {"default": key.key_id, "keys": {**content["keys"], key.key_id: record}}
        )

    def remove(self, key_id: str) -> None:
        """Forget a key; if it was the default, there is none then.

        Raises:
            CommandError: The file cannot be understood.
        """
        content = self._read()
        kept = {name: record for name, record in content["keys"].items() if name != key_id}
        default = None if content["default"] == key_id else content["default"]
        self._write(content | {"default": default, "keys": kept})

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_bytes())
            known: dict[str, Any] = {"version": VERSION, "default": None, "keys": {}} | content
            whole = known["version"] == VERSION and all(
                isinstance(record["key"], str) for record in known["keys"].values()
            )
        except FileNotFoundError:
            return {"version": VERSION, "default": None, "keys": {}}
        except (ValueError, TypeError, KeyError, AttributeError):
            whole = False
        if not whole:
            raise CommandError(
                f"{self.path} is not a credentials file of version {VERSION}",
                "Mend it, or remove it and log in again.",
            )
        return known

    def _write(self, content: dict[str, Any]) -> None:
        if content["default"] is None:
            content = {name: value for name, value in content.items() if name != "default"}
        folder = self.path.parent
        if not folder.is_dir():
            folder.mkdir(parents=True)
            folder.chmod(_DIRECTORY_MODE)
        # mkstemp's files are their owner's alone from their first instant.
        descriptor, scratch = tempfile.mkstemp(dir=folder, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
            Path(scratch).replace(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(scratch).unlink()
            raise
