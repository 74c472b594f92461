"""Unpacking an archive that came from somewhere else, without trusting it.

Invariant: nothing is written outside the folder that was asked for, and the folder is there whole
or not at all.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from tinker_ray.cli.failure import CommandError


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a tar file into a new folder; return the bytes of its files.

    Args:
        archive: Compressed or not.
        folder: Is made; what was there before is replaced once all is unpacked.

    Raises:
        CommandError: It is no archive, is damaged, or holds what no checkpoint has: links, devices,
            paths that lead elsewhere.
    """
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        num_bytes = _unpack(archive, scratch)
        replace(scratch, folder)
    except (tarfile.TarError, EOFError) as error:
        raise CommandError(
            f"{archive.name} cannot be unpacked: {error}", "It may be damaged: download it again."
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return num_bytes


def replace(scratch: Path, folder: Path) -> None:
    """Put a folder in the place of another one, which may not be there."""
    if folder.exists():
        old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        folder.replace(old / folder.name)
        scratch.replace(folder)
        shutil.rmtree(old)
    else:
        scratch.replace(folder)


def safe_path(folder: Path, name: str) -> Path:
    """Return where a file of this name goes.

    Raises:
        CommandError: That would be outside the folder.
    """
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name:
        raise CommandError(
            f"the checkpoint holds a file with the unsafe path {name!r}",
            "It may be damaged or malicious; nothing was kept of it.",
        )
    return folder.joinpath(*parts)


def _unpack(archive: Path, scratch: Path) -> int:
    num_bytes = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name in {".", "./"}:
                continue
            target = safe_path(scratch, member.name)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise CommandError(
                    f"the archive holds {member.name!r}, which is neither a file nor a folder",
                    "It may be damaged or malicious; nothing was kept of it.",
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)
            num_bytes += member.size
    return num_bytes
