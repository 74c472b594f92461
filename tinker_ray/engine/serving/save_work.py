"""What operations that save a model's weights do when their turn has come.

Every function returns the work of one accepted operation, which gives its outcome. Knows nothing of
HTTP or of the order of operations.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tinker_ray.engine.model.adapter_file import peft_files, write_directory
from tinker_ray.engine.serving.operation import json_outcome
from tinker_ray.engine.store.encryption import encrypt_files
from tinker_ray.engine.store.row import SamplerRow

if TYPE_CHECKING:
    from pathlib import Path

    from tinker_ray.engine.host import Host
    from tinker_ray.engine.served_model import ServedModel
    from tinker_ray.engine.serving.schema import (
        SaveWeightsExternalRequest,
        SaveWeightsForSamplerRequest,
        SaveWeightsRequest,
    )
    from tinker_ray.engine.serving.training_runs import Work
    from tinker_ray.engine.store.checkpoint_store import Slot
    from tinker_ray.engine.store.encryption import Recipients
    from tinker_ray.engine.store.row import ModelRow, Outcome, SamplerKind


def save(host: Host, served: ServedModel, slot: Slot, request: SaveWeightsRequest) -> Work:
    """Write a checkpoint with its optimizer."""

    async def work() -> Outcome:
        try:
            future = served.trainer.save(slot.run_id, slot.directory, optimizer=True)
            size_bytes = await asyncio.wrap_future(future)
            _fill(host, slot, size_bytes, request)
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
            _fill(host, slot, size_bytes, request)
        finally:
            host.checkpoints.release(slot)
        return json_outcome({"path": slot.tinker_path, "type": "save_weights_for_sampler"})

    return work


def save_external(
    host: Host,
    served: ServedModel,
    slot: Slot,
    request: SaveWeightsExternalRequest,
    recipients: Recipients,
) -> Work:
    """Write the files that other tools load, encrypted if there are recipients."""

    async def work() -> Outcome:
        try:
            adapter = await asyncio.wrap_future(served.trainer.snapshot(slot.run_id))

            def write() -> int:
                files = peft_files(adapter, base_model=served.base.name)
                files = encrypt_files(files, recipients)
                write_directory(slot.directory, files)
                return sum(len(content) for content in files.values())

            size_bytes = await asyncio.to_thread(write)
            _fill(host, slot, size_bytes, request)
        finally:
            host.checkpoints.release(slot)
        return json_outcome(
            {"path": slot.tinker_path, "size_bytes": size_bytes, "type": "save_weights_external"}
        )

    return work


def _fill(
    host: Host,
    slot: Slot,
    size_bytes: int,
    request: SaveWeightsRequest | SaveWeightsForSamplerRequest | SaveWeightsExternalRequest,
) -> None:
    row = host.checkpoints.fill(
        slot, size_bytes, ttl_s=request.ttl_seconds, user_metadata=request.user_metadata
    )
    host.audit.checkpoint("created", slot.owner, row)


def open_sampler(
    host: Host, served: ServedModel, row: ModelRow, sampler_id: str, kind: SamplerKind
) -> Work:
    """Write the weights of a new sampling session.

    Those of a snapshot belong to the session alone; inflight ones are what all inflight sessions of
    the run sample from, from now on.
    """

    async def work() -> Outcome:
        directory = host.checkpoints.ephemeral_directory(row.model_id)
        await _snapshot(host, served, row.model_id, directory)
        sampler = SamplerRow(
            sampler_id=sampler_id,
            session_id=row.session_id,
            base_model=row.base_model,
            model_path=None,
            directory=directory,
            ephemeral=True,
            created_at=time.time(),
            owner=row.owner,
            kind=kind,
            run_id=row.model_id,
        )
        if kind == "snapshot":
            host.ledger.samplers.add(sampler)
        else:
            shared = replace(sampler, directory=None)
            before = host.ledger.samplers.add_inflight(shared, directory)
            if before is not None:
                host.checkpoints.remove(before)
        return json_outcome({"sampling_session_id": sampler_id, "type": "save_weights_for_sampler"})

    return work


async def _snapshot(host: Host, served: ServedModel, model_id: str, directory: Path) -> int:
    """Write weights to disk and hold the same weights in memory."""
    saving = served.trainer.save(model_id, directory, optimizer=False)
    copying = served.trainer.snapshot(model_id)
    size_bytes = await asyncio.wrap_future(saving)
    host.sampling.snapshots.put(directory, await asyncio.wrap_future(copying))
    return size_bytes
