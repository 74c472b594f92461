"""Sampling from a base model: checks requests and spreads them over lanes.

What a lane does stands in :mod:`.lane`. Knows nothing of HTTP or promises.

Invariants: every future is answered; a seeded request draws the same tokens in every lane.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

from tinker_ray.engine.sampling.lane import Lane
from tinker_ray.engine.sampling.sequence import Job, SampleJob
from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from tinker_ray.engine.model.base_model import BaseModel
    from tinker_ray.types import SampleResponse

__all__ = ["SampleJob", "Sampler"]

_FULL_ROWS = 128


class Sampler:
    """Samples from a base model and adapters on it."""

    def __init__(
        self,
        base: BaseModel,
        *,
        max_rows: int = 256,
        kv_bytes: int = 2 << 30,
        num_lanes: int | None = None,
    ) -> None:
        """Start the lanes.

        Args:
            base: The model; adapters come with the requests.
            max_rows: Most sequences for a lane to draw at once.
            kv_bytes: Most memory for keys and values; a single sequence may exceed it.
            num_lanes: None for as many as suit the model and the machine.
        """
        self._base = base
        count = base.num_lanes if num_lanes is None else num_lanes
        self._lanes = [
            Lane(base, f"sampler-{index}", max_rows=max_rows, kv_bytes=kv_bytes // count)
            for index in range(count)
        ]

    @property
    def queued_sequences(self) -> int:
        """Sequences that have been asked for and have no row yet."""
        return sum(lane.queued_sequences for lane in self._lanes)

    @property
    def active_sequences(self) -> int:
        """Sequences being drawn."""
        return sum(lane.active_sequences for lane in self._lanes)

    def submit(self, request: SampleJob) -> Future[SampleResponse]:
        """Queue a request; cancelling the future frees what it holds.

        A request that cannot be answered fails its future with an :class:`EngineError` of category
        ``user``.
        """
        future: Future[SampleResponse] = Future()
        try:
            job = Job.start(request, future, self._base)
        except EngineError as error:
            future.set_exception(error)
        else:
            self._lane().put(job)
        return future

    def close(self) -> None:
        """End the threads and fail all requests that are not answered."""
        for lane in self._lanes:
            lane.stop()
        for lane in self._lanes:
            lane.join()

    def _lane(self) -> Lane:
        """Choose the first lane that is not full, or the emptiest one.

        Few rows stay together: half of them cost as many operations as all.
        """
        loads = [lane.load for lane in self._lanes]
        for lane, load in zip(self._lanes, loads, strict=True):
            if load < _FULL_ROWS:
                return lane
        return self._lanes[loads.index(min(loads))]
