"""The secret of a data folder, from which every signature is derived."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "secret"
_SIZE_BYTES = 32


def load_secret(folder: Path) -> bytes:
    """Read the secret of a data folder; make it, readable by this user alone, if there is none.

    Raises:
        EngineError: The file is not a secret of ours.
    """
    path = folder / _NAME
    if not path.exists():
        scratch = path.with_suffix(f".{secrets.token_hex(4)}")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_SIZE_BYTES))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(scratch)  # never replaces a secret that is there
        scratch.unlink()
    secret = path.read_bytes()
    if len(secret) != _SIZE_BYTES:
        message = (
            f"{path} is not the secret of a data folder: delete it, and links and tokens that were "
            "handed out stop working"
        )
        raise EngineError(message, category="user")
    return secret
