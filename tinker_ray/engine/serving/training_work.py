"""What operations that change a model do when their turn has come.

Every function returns the work of one accepted operation, which gives its outcome. Knows nothing of
HTTP or of the order of operations.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.engine.serving.operation import json_outcome
from tinker_ray.engine.store.row import Outcome
from tinker_ray.wire import codec

if TYPE_CHECKING:
    from tinker_ray.engine.host import Host
    from tinker_ray.engine.served_model import ServedModel
    from tinker_ray.engine.serving.training_runs import Work
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


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint to load, and who may read it.

    Attributes:
        tinker_path: Its path.
        readers: Owners; it has to belong to one of them, or be public.
        optimizer: Whether to restore the optimizer too.
    """

    tinker_path: str
    readers: frozenset[str]
    optimizer: bool


def create_from(host: Host, served: ServedModel, row: ModelRow, source: Source) -> Work:
    """Make a model out of a checkpoint."""

    async def work() -> Outcome:
        await _create(host, served, row)
        try:
            await _load(host, served, row.model_id, source)
        except Exception:
            host.runs.forget(row.model_id)
            await asyncio.wrap_future(served.trainer.unload(row.model_id))
            raise
        return _loaded(source, row.model_id)

    return work


async def _create(host: Host, served: ServedModel, row: ModelRow) -> None:
    try:
        await asyncio.wrap_future(served.trainer.create(row.model_id, row.lora))
    except Exception:
        host.runs.forget(row.model_id)
        raise


def load(host: Host, served: ServedModel, model_id: str, source: Source) -> Work:
    """Replace a model's weights by a checkpoint."""

    async def work() -> Outcome:
        await _load(host, served, model_id, source)
        return _loaded(source, model_id)

    return work


async def _load(host: Host, served: ServedModel, model_id: str, source: Source) -> None:
    row = host.checkpoints.resolve(source.tinker_path, source.readers, field="path")
    future = served.trainer.load(model_id, row.directory, optimizer=source.optimizer)
    host.ledger.models.set_lora(model_id, await asyncio.wrap_future(future))


def _loaded(source: Source, model_id: str) -> Outcome:
    return json_outcome({"path": source.tinker_path, "model_id": model_id, "type": "load_weights"})


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


def unload(host: Host, served: ServedModel, model_id: str) -> Work:
    """Let a model's weights go."""

    async def work() -> Outcome:
        host.runs.forget(model_id)
        await asyncio.wrap_future(served.trainer.unload(model_id))
        return json_outcome({"model_id": model_id, "type": "unload_model"})

    return work
