"""The way of a sampling request: addressed to weights, checked, accepted, sampled, told.

Knows nothing of HTTP. Lives on one event loop.

Invariant: a request is refused for lack of room before anything of it is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Literal

import numpy as np

from tinker_ray.engine.serving.completion import target_of
from tinker_ray.engine.serving.operation import failure, failure_of
from tinker_ray.engine.serving.rejection import RequestRejected, not_found
from tinker_ray.engine.serving.validate import sample_job
from tinker_ray.engine.store.row import Activity, Outcome
from tinker_ray.engine.store.snapshot_cache import SnapshotCache
from tinker_ray.engine.training.recorded_samples import RecordedSample, RecordedSamples
from tinker_ray.errors import EngineError
from tinker_ray.telemetry import inject, names
from tinker_ray.telemetry.trace import record
from tinker_ray.wire import codec

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from concurrent.futures import Future
    from pathlib import Path

    from tinker_ray.engine.model.adapter import Adapter
    from tinker_ray.engine.sampling.sequence import SampleJob
    from tinker_ray.engine.served_model import ServedModel
    from tinker_ray.engine.serving.completion import Target
    from tinker_ray.engine.serving.promise import Promise, PromiseStore
    from tinker_ray.engine.shelf import Shelf
    from tinker_ray.engine.store.checkpoint_store import CheckpointStore
    from tinker_ray.engine.store.ledger import Ledger
    from tinker_ray.engine.store.row import SamplerRow, UsageType
    from tinker_ray.types import SampleResponse
    from tinker_ray.wire.request import SampleRequest


class _Gone(Enum):
    GONE = "gone"


_GONE = _Gone.GONE
_DELETED = "the weights of this sampling session were deleted"


@dataclass(frozen=True, slots=True)
class Weights:
    """What to sample from: a base model, with the adapter of a folder if there is one.

    Attributes:
        base_model: The name of the base model.
        directory: The adapter's folder.
        session_id: The session that asks; empty for requests outside of sessions.
        sampler_id: The sampling session that asks.
    """

    base_model: str
    directory: Path | None
    session_id: str = ""
    sampler_id: str = ""


class Sampling:
    """The samples of an engine.

    Args:
        ledger: Where sampling sessions are recorded.
        checkpoints: Where the weights are.
        promises: Where the results are.
        shelf: The base models.
        max_queued_sequences: Sequences that may wait for a row in one base model's batch.

    Attributes:
        snapshots: The adapters in memory.
        recorded: The samples that losses may refer to.
        keeps_pending: Whether promised samples are recorded until their end is acknowledged, as
            clients need it that poll for whole sampling sessions.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        ledger: Ledger,
        checkpoints: CheckpointStore,
        promises: PromiseStore,
        shelf: Shelf,
        *,
        max_queued_sequences: int,
        keeps_pending: bool = False,
    ) -> None:
        self._ledger = ledger
        self._checkpoints = checkpoints
        self._promises = promises
        self.snapshots = SnapshotCache()
        self.recorded = RecordedSamples()
        self._shelf = shelf
        self._max_queued_sequences = max_queued_sequences
        self.keeps_pending = keeps_pending

    async def accept(self, request: SampleRequest, content: bytes, owner: str) -> Promise:
        """Accept a request, or find the promise of the one that it repeats.

        Raises:
            RequestRejected: The request is wrong, its weights are unknown, or the queue is full
                (429).
        """
        weights = self._weights(request, owner)
        served = self._shelf.find(weights.base_model)
        job = sample_job(request, served.base, max_sequences=self._max_queued_sequences)
        while (adapter := await self._adapter(served, weights)) is _GONE:
            before, weights = weights, self._weights(request, owner)
            if weights == before:
                raise not_found(_DELETED, "sampling_session_id")
        job = replace(job, adapter=adapter)
        key = _key(request, content)
        if key is not None and (known := self._promises.find_sample(key)) is not None:
            return known
        queued = served.sampler.queued_sequences
        if queued and queued + request.num_samples > self._max_queued_sequences:
            raise RequestRejected(f"{queued} sequences are waiting: try again", status_code=429)
        target = target_of(request.sampling_session_id, request.seq_id)
        promise = self._promises.open_sample(key, owner, target)
        if self.keeps_pending and target is not None:
            self._ledger.pending.add(promise.request_id, *target)
        self._start(served, job, promise, weights, recorded=request.record_stability_info)
        return promise

    def promised(self, target: Target) -> list[str]:
        """List the samples of one client whose end nobody has acknowledged, as far as recorded."""
        return self._ledger.pending.of(*target) if self.keeps_pending else []

    def acknowledge(self, request_ids: Iterable[str]) -> None:
        """Take note that clients know of the end of samples."""
        if self.keeps_pending:
            self._ledger.pending.remove(request_ids)

    def sampler(self, sampler_id: str, owner: str, *, field: str) -> SamplerRow:
        """Look a sampling session up.

        Raises:
            RequestRejected: The owner has none of this name.
        """
        row = self._ledger.samplers.get(sampler_id)
        if row is None or row.owner != owner:
            raise not_found(f"there is no sampling session {sampler_id!r}", field)
        return row

    def _weights(self, request: SampleRequest, owner: str) -> Weights:
        if request.sampling_session_id is None:
            return self.resolve(request.base_model, request.model_path, owner)
        row = self.sampler(request.sampling_session_id, owner, field="sampling_session_id")
        directory = row.directory
        if row.kind == "inflight":
            directory = self._ledger.samplers.inflight_directory(row.run_id or "")
            if directory is None:
                raise not_found(_DELETED, "sampling_session_id")
        elif row.model_path is not None:
            checkpoint = self._ledger.checkpoints.get(row.model_path)
            if (
                checkpoint is not None
                and checkpoint.directory == directory
                and self._checkpoints.is_expired(checkpoint)
            ):
                raise not_found(_DELETED, "sampling_session_id")
        return Weights(row.base_model, directory, row.session_id, row.sampler_id)

    def resolve(self, base_model: str | None, model_path: str | None, owner: str) -> Weights:
        """Find the weights of a checkpoint or of a base model.

        Raises:
            RequestRejected: They are unknown, or do not belong together.
        """
        if model_path is None:
            if base_model is None:
                raise RequestRejected("give base_model or model_path", field="base_model")
            return Weights(self._shelf.find(base_model).base.name, None)
        row = self._checkpoints.resolve(model_path, {owner}, field="model_path")
        if row.checkpoint_type == "external":
            message = f"{model_path} was exported: sample from what was saved for samplers"
            raise RequestRejected(message, field="model_path")
        run = self._ledger.models.get(row.run_id)
        if run is None:
            raise not_found(f"there is no training run {row.run_id!r}", "model_path")
        if base_model not in {None, run.base_model}:
            message = f"{model_path} was trained on {run.base_model!r}, not on {base_model!r}"
            raise RequestRejected(message, field="base_model")
        self._shelf.find(run.base_model, field="model_path")
        return Weights(run.base_model, row.directory)

    async def _adapter(
        self, served: ServedModel, weights: Weights
    ) -> Adapter | Literal[_Gone.GONE] | None:
        """Read an adapter, unless it was deleted, or replaced by newer inflight weights."""
        if weights.directory is None:
            return None
        if not weights.directory.exists():
            return _GONE
        try:
            return await self.snapshots.get(weights.directory, served.base.device)
        except EngineError:
            if weights.directory.exists():
                raise
            return _GONE

    def _start(
        self,
        served: ServedModel,
        job: SampleJob,
        promise: Promise,
        weights: Weights,
        *,
        recorded: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        carrier, started_ns = inject(), time.time_ns()
        future = served.sampler.submit(job)
        promise.cancel = future.cancel

        def settle() -> None:
            ended_ns = time.time_ns()
            attributes = {names.REQUEST_ID: promise.request_id}
            record(
                names.ENGINE_SAMPLE,
                start_ns=started_ns,
                end_ns=ended_ns,
                attributes=attributes,
                carrier=carrier,
            )
            outcome = _outcome(future)
            if recorded and outcome.form != "error":
                self._record(weights.session_id, promise.request_id, job, future.result())
            self._ledger.usage.record(
                Activity(
                    request_id=promise.request_id,
                    kind="sample",
                    owner=promise.owner,
                    session_id=weights.session_id,
                    base_model=weights.base_model,
                    track=weights.sampler_id,
                    accepted_at=started_ns / 1e9,
                    started_at=None,
                    ended_at=ended_ns / 1e9,
                    ok=outcome.form != "error",
                    usage={} if outcome.form == "error" else _usage(job, future.result()),
                )
            )
            self._promises.show(promise, outcome)

        def wake(_: Future[SampleResponse]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle)

        future.add_done_callback(wake)

    def _record(
        self, session_id: str, request_id: str, job: SampleJob, response: SampleResponse
    ) -> None:
        """Keep what losses need of a sample, before anyone knows of its end."""
        prompt = job.prompt.astype(np.int32)
        ids = sequence_ids(request_id, job.num_samples)
        for sequence_id, sequence in zip(ids, response.sequences, strict=True):
            if sequence.logprobs_np is not None:
                sample = RecordedSample(prompt, sequence.tokens_np, sequence.logprobs_np)
                self.recorded.add(session_id, sequence_id, sample)


def sequence_ids(request_id: str, num_samples: int) -> list[str]:
    """Name the sequences of a sampling request."""
    return [f"{request_id}/{index}" for index in range(num_samples)]


def _usage(job: SampleJob, response: SampleResponse) -> dict[UsageType, int]:
    """Count what a sample took; a prompt is run once for all its sequences."""
    num_cached = response.prompt_cache_hit_tokens
    counts: dict[UsageType, int] = {
        "sampling_prefill": len(job.prompt) - num_cached,
        "sampling_prefill_cached": num_cached,
        "sampling_sample": sum(len(sequence.tokens_np) for sequence in response.sequences),
    }
    return {usage_type: count for usage_type, count in counts.items() if count}


def _key(request: SampleRequest, content: bytes) -> Hashable | None:
    """What a repetition of a request has in common with it: its place, and every byte."""
    if request.sampling_session_id is None or request.seq_id is None:
        return None
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return request.sampling_session_id, request.seq_id, digest


def _outcome(future: Future[SampleResponse]) -> Outcome:
    if future.cancelled():
        return failure("cancelled by the client", "user")
    if (error := future.exception()) is not None:
        return failure_of(error, "sample")
    return Outcome("sample", codec.encode_sample_response(future.result(), proto=True).content)
