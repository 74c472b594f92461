"""What is behind signed addresses, for commands that fetch it."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tinker_ray.cli.fetch import Find
    from tinker_ray.cli.terminal import Progress

PEFT_FILES = {"adapter_config.json": b'{"r": 8}', "adapter_model.safetensors": b"weights"}


@dataclass
class SignedFiles:
    """Fetches what it holds by address; keeps the addresses."""

    content: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    async def __call__(self, find: Find, destination: Path, progress: Progress) -> int:
        """Write the content of an address into a file."""
        url = await find()
        self.fetched.append(url)
        content = self.content[url]
        destination.write_bytes(content)  # noqa: ASYNC240 - a few bytes
        progress(len(content), len(content))
        return len(content)


def archive_of(files: dict[str, bytes]) -> bytes:
    """Pack files into a tar archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()
