"""What each training operation does when its turn has come.

Every function returns the work of one accepted operation, which gives its outcome. Knows nothing of
HTTP or of the order of operations.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from tinker_ray.engine.serving.operation import json_outcome
from tinker_ray.engine.store.row import Outcome, SamplerRow
from tinker_ray.wire import codec

if TYPE_CHECKING:
    from pathlib import Path

    from tinker_ray.engine.host import Host
    from tinker_ray.engine.served_model import ServedModel
    from tinker_ray.engine.serving.schema import (
        SaveWeightsForSamplerRequest,
        SaveWeightsRequest,
    )
    from tinker_ray.engine.serving.training_runs import Work
    from tinker_ray.engine.store.checkpoint_store import Slot
    from tinker_ray.engine.store.row import ModelRow
    from tinker_ray.engine.training.batch import TrainingBatch
    from tinker_ray.types import AdamParams, ForwardBackwardOutput

_MANY_DATUMS = 64


def create(host: Host, served: ServedModel, row: ModelRow) -> Work:
    """Make a model."""

    async def work() -> Outcome:
        await _create(host, served, row)
        return json_outcome({"model_id": row.model_id, "type": "create_model"})

    return work


def create_from(
    host: Host, served: ServedModel, row: ModelRow, tinker_path: str, *, optimizer: bool
) -> Work:
    """Make a model out of a checkpoint."""

    async def work() -> Outcome:
        await _create(host, served, row)
        await _load(host, served, row.model_id, tinker_path, optimizer=optimizer)
        return json_outcome({"path": tinker_path, "model_id": row.model_id, "type": "load_weights"})

    return work


async def _create(host: Host, served: ServedModel, row: ModelRow) -> None:
    try:
        await asyncio.wrap_future(served.trainer.create(row.model_id, row.lora))
    except Exception:
        host.runs.forget(row.model_id)
        raise


def load(
    host: Host, served: ServedModel, model_id: str, tinker_path: str, *, optimizer: bool
) -> Work:
    """Replace a model's weights by a checkpoint."""

    async def work() -> Outcome:
        await _load(host, served, model_id, tinker_path, optimizer=optimizer)
        return json_outcome({"path": tinker_path, "model_id": model_id, "type": "load_weights"})

    return work


async def _load(
    host: Host, served: ServedModel, model_id: str, tinker_path: str, *, optimizer: bool
) -> None:
    row = host.checkpoints.resolve(tinker_path, field="path")
    await asyncio.wrap_future(served.trainer.load(model_id, row.directory, optimizer=optimizer))


def forward(served: ServedModel, model_id: str, batch: TrainingBatch) -> Work:
    """Compute a loss, and its gradient if the batch goes backward."""

    async def work() -> Outcome:
        output = await asyncio.wrap_future(served.trainer.run_batch(model_id, batch))
        if len(batch.rows) > _MANY_DATUMS:
            return await asyncio.to_thread(_output, output)
        return _output(output)

    return work


def _output(output: ForwardBackwardOutput) -> Outcome:
    return Outcome("output", codec.encode_forward_backward_output(output, proto=True).content)


def optim_step(served: ServedModel, model_id: str, params: AdamParams) -> Work:
    """Apply the gradients."""

    async def work() -> Outcome:
        metrics = await asyncio.wrap_future(served.trainer.optim_step(model_id, params))
        return json_outcome({"metrics": metrics})

    return work


def save(host: Host, served: ServedModel, slot: Slot, request: SaveWeightsRequest) -> Work:
    """Write a checkpoint with its optimizer."""

    async def work() -> Outcome:
        try:
            future = served.trainer.save(slot.run_id, slot.directory, optimizer=True)
            size_bytes = await asyncio.wrap_future(future)
            host.checkpoints.fill(
                slot,
                size_bytes,
                ttl_s=request.ttl_seconds,
                user_metadata=request.user_metadata,
            )
        finally:
            host.checkpoints.release(slot)
        return json_outcome({"path": slot.tinker_path, "type": "save_weights"})

    return work


def save_for_sampler(
    host: Host, served: ServedModel, slot: Slot, request: SaveWeightsForSamplerRequest
) -> Work:
    """Write named weights for samplers."""

    async def work() -> Outcome:
        try:
            size_bytes = await _snapshot(host, served, slot.run_id, slot.directory)
            host.checkpoints.fill(
                slot,
                size_bytes,
                ttl_s=request.ttl_seconds,
                user_metadata=request.user_metadata,
            )
        finally:
            host.checkpoints.release(slot)
        return json_outcome({"path": slot.tinker_path, "type": "save_weights_for_sampler"})

    return work


def open_sampler(host: Host, served: ServedModel, row: ModelRow, sampler_id: str) -> Work:
    """Write the weights of a new sampling session, to which alone they belong."""

    async def work() -> Outcome:
        directory = host.checkpoints.ephemeral_directory(row.model_id)
        await _snapshot(host, served, row.model_id, directory)
        host.ledger.add_sampler(
            SamplerRow(
                sampler_id=sampler_id,
                session_id=row.session_id,
                base_model=row.base_model,
                model_path=None,
                directory=directory,
                ephemeral=True,
                created_at=time.time(),
            )
        )
        return json_outcome({"sampling_session_id": sampler_id, "type": "save_weights_for_sampler"})

    return work


async def _snapshot(host: Host, served: ServedModel, model_id: str, directory: Path) -> int:
    """Write weights to disk and hold the same weights in memory."""
    saving = served.trainer.save(model_id, directory, optimizer=False)
    copying = served.trainer.snapshot(model_id)
    size_bytes = await asyncio.wrap_future(saving)
    host.sampling.snapshots.put(directory, await asyncio.wrap_future(copying))
    return size_bytes


def unload(host: Host, served: ServedModel, model_id: str) -> Work:
    """Let a model's weights go."""

    async def work() -> Outcome:
        host.runs.forget(model_id)
        await asyncio.wrap_future(served.trainer.unload(model_id))
        return json_outcome({"model_id": model_id, "type": "unload_model"})

    return work
