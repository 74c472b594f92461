"""Samples that were taken with ``record_stability_info``, for losses that need what sampling saw.

In memory only: they end with the process, as the results of samples do. Safe to use from any
thread.

Invariant: no more than a fixed sum of bytes is kept; the least recently used sample goes first, and
one that was not used for a day goes in any case.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

KEPT_S = 24 * 3600.0
MAX_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class RecordedSample:
    """One drawn sequence.

    Attributes:
        prompt: What it continues, ``(P,)``.
        tokens: What was drawn, ``(N,)``.
        logprobs: Of what was drawn, under the model that drew it, ``(N,)``.
    """

    prompt: npt.NDArray[np.integer]
    tokens: npt.NDArray[np.integer]
    logprobs: npt.NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes; samples of one request share their prompt, which each counts."""
        return self.prompt.nbytes + self.tokens.nbytes + self.logprobs.nbytes


class RecordedSamples:
    """Recorded samples by session and sequence id.

    Args:
        max_bytes: How much to keep.
        now: A clock that goes on, in seconds.
    """

    def __init__(
        self, *, max_bytes: int = MAX_BYTES, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._now = now
        self._lock = threading.Lock()
        self._samples: OrderedDict[tuple[str, str], tuple[float, RecordedSample]] = OrderedDict()
        self._size_bytes = 0

    def add(self, session_id: str, sequence_id: str, sample: RecordedSample) -> None:
        """Keep a sample under its id, which belongs to the session that drew it."""
        with self._lock:
            key = (session_id, sequence_id)
            if key in self._samples:
                self._drop(key)
            self._samples[key] = (self._now(), sample)
            self._size_bytes += sample.nbytes
            self._drop_old()

    def find(self, session_id: str, sequence_id: str) -> RecordedSample:
        """Look a sample up, which starts its day again.

        Raises:
            EngineError: There is none in this session.
        """
        with self._lock:
            self._drop_old()
            key = (session_id, sequence_id)
            if key not in self._samples:
                message = (
                    f"sequence {sequence_id!r} is not recorded in this session: it was sampled "
                    "without record_stability_info, in another session, before the engine's "
                    f"start, more than a day ago, or made room for newer ones (the engine keeps "
                    f"{self._max_bytes >> 20} MiB)"
                )
                raise EngineError(message, category="user")
            _, sample = self._samples[key]
            self._samples[key] = (self._now(), sample)
            self._samples.move_to_end(key)
            return sample

    def _drop_old(self) -> None:
        while self._samples:
            key, (used_at, _) = next(iter(self._samples.items()))
            is_old = self._now() - used_at > KEPT_S
            if not is_old and self._size_bytes <= self._max_bytes:
                return
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        _, dropped = self._samples.pop(key)
        self._size_bytes -= dropped.nbytes
