"""The adapters of sampling sessions in memory: fresh ones as they were saved, old ones from disk.

Lives on one event loop. Invariant: an adapter is read at most once at a time, and never changed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from tinker_ray.engine.model.adapter_file import load_adapter

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from tinker_ray.engine.model.adapter import Adapter


class SnapshotCache:
    """Adapters by their folder.

    Args:
        max_bytes: Adapters are held up to this sum; the least recently used goes first.
    """

    def __init__(self, *, max_bytes: int = 1 << 30) -> None:
        self._max_bytes = max_bytes
        self._adapters: OrderedDict[Path, Adapter] = OrderedDict()
        self._size_bytes = 0
        self._loading: dict[Path, asyncio.Task[Adapter]] = {}

    def put(self, directory: Path, adapter: Adapter) -> None:
        """Hold an adapter that was just written to ``directory``."""
        self.drop(directory)
        self._adapters[directory] = adapter
        self._size_bytes += adapter.flat.nbytes
        while self._size_bytes > self._max_bytes and len(self._adapters) > 1:
            _, dropped = self._adapters.popitem(last=False)
            self._size_bytes -= dropped.flat.nbytes

    def drop(self, directory: Path) -> None:
        """Forget an adapter."""
        if (dropped := self._adapters.pop(directory, None)) is not None:
            self._size_bytes -= dropped.flat.nbytes

    async def get(self, directory: Path, device: torch.device) -> Adapter:
        """Return an adapter, reading it in a thread if it is not held.

        Raises:
            EngineError: It is missing on disk, or damaged.
        """
        if (held := self._adapters.get(directory)) is not None:
            self._adapters.move_to_end(directory)
            return held
        if (task := self._loading.get(directory)) is None:
            task = asyncio.create_task(self._load(directory, device))
            self._loading[directory] = task
            task.add_done_callback(lambda _: self._loading.pop(directory, None))
        return await asyncio.shield(task)

    async def _load(self, directory: Path, device: torch.device) -> Adapter:
        adapter = await asyncio.to_thread(load_adapter, directory, device)
        self.put(directory, adapter)
        return adapter
