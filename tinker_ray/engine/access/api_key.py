"""The API keys that an engine is started with. Cheap to import."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.config import Secret
from tinker_ray.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_HASH_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that clients may send.

    Attributes:
        secret: The key.
        owner: Who owns what is made with it; None for an owner of its own.
        project_id: Where sessions go that name no project.
    """

    secret: Secret
    owner: str | None = None
    project_id: str | None = None

    @property
    def key_hash(self) -> str:
        """What is kept of the key."""
        return hashlib.sha256(self.secret.reveal().encode()).hexdigest()

    @property
    def owner_name(self) -> str:
        """The owner, named by the key's hash if there is no better name."""
        return self.owner or f"key-{self.key_hash[:_HASH_CHARACTERS]}"


def read_keys(path: Path) -> list[ApiKey]:
    """Read a file with a key on each line: ``OWNER:KEY`` or ``OWNER:KEY:PROJECT``.

    Empty lines and lines that start with ``#`` are skipped; several keys may have one owner.

    Raises:
        EngineStartError: The file cannot be read, or a line is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read the keys in {path}: {error}"
        raise EngineStartError(message, category="user") from error
    keys = list(_parsed(path, lines))
    if not keys:
        raise EngineStartError(f"{path} holds no keys", category="user")
    return keys


def _parsed(path: Path, lines: Sequence[str]) -> Iterator[ApiKey]:
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        owner, _, rest = line.partition(":")
        secret, _, project = rest.partition(":")
        if not _NAME.match(owner) or not secret or (":" in rest and not _NAME.match(project)):
            message = (  # never with the line, which holds a key
                f"{path} line {number}: expected OWNER:KEY or OWNER:KEY:PROJECT, with names of "
                "up to 64 letters, digits, '.', '-', '_' and '@'"
            )
            raise EngineStartError(message, category="user")
        yield ApiKey(Secret(secret), owner, project or None)
