"""Endpoints that save and load weights."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving import training_work
from tinker_ray.engine.serving.answer import host_of, json_answer, promise_answer, record_answer
from tinker_ray.engine.serving.rejection import RequestRejected, not_found
from tinker_ray.engine.serving.schema import (
    LoadWeightsRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
    WeightsInfoRequest,
)
from tinker_ray.engine.store.row import ModelRow
from tinker_ray.types import WeightsInfoResponse

if TYPE_CHECKING:
    from tinker_ray.engine.host import Host
    from tinker_ray.engine.serving.training_runs import Work
    from tinker_ray.engine.store.row import CheckpointRow

router = APIRouter()


@router.post("/save_weights")
async def save_weights(body: SaveWeightsRequest, request: Request) -> Response:
    """Save a model with its optimizer under a name."""
    host = host_of(request)

    def prepare(row: ModelRow) -> Work:
        name = body.path or f"state-{int(time.time() * 1000)}"
        slot = host.checkpoints.reserve(row.model_id, "weights", name, overwrite=body.overwrite)
        return training_work.save(host, host.shelf.find(row.base_model), slot, body)

    request_id = host.runs.accept("save_weights", body.model_id, body.seq_id, prepare)
    return promise_answer(request_id, body.model_id)


@router.post("/save_weights_for_sampler")
async def save_weights_for_sampler(
    body: SaveWeightsForSamplerRequest, request: Request
) -> Response:
    """Save weights for samplers: under a name, or for a sampling session that this opens."""
    host = host_of(request)

    def prepare(row: ModelRow) -> Work:
        served = host.shelf.find(row.base_model)
        if body.path is not None:
            slot = host.checkpoints.reserve(row.model_id, "sampler_weights", body.path)
            return training_work.save_for_sampler(host, served, slot, body)
        if body.sampling_session_seq_id is None:
            message = "give a name, or sampling_session_seq_id for an unnamed save"
            raise RequestRejected(message, field="path")
        sampler_id = f"{row.session_id}:sample:{body.sampling_session_seq_id}"
        if host.ledger.sampler(sampler_id) is not None:
            message = f"{body.sampling_session_seq_id} was already used"
            raise RequestRejected(message, field="sampling_session_seq_id")
        return training_work.open_sampler(host, served, row, sampler_id)

    request_id = host.runs.accept("save_weights_for_sampler", body.model_id, body.seq_id, prepare)
    return promise_answer(request_id, body.model_id)


@router.post("/load_weights")
async def load_weights(body: LoadWeightsRequest, request: Request) -> Response:
    """Load a checkpoint into a model, or make a model out of it."""
    host = host_of(request)
    if body.session_id is not None and body.model_id is None:
        return _create_from(host, body)
    if body.model_id is None:
        raise RequestRejected("give model_id, or session_id for a new model", field="model_id")

    def prepare(row: ModelRow) -> Work:
        if not host.checkpoints.is_expected(body.path):
            _check_fits(host, row, body)
        return training_work.load(
            host,
            host.shelf.find(row.base_model),
            row.model_id,
            body.path,
            optimizer=body.optimizer,
        )

    request_id = host.runs.accept("load_weights", body.model_id, body.seq_id, prepare)
    return promise_answer(request_id, body.model_id)


def _check_fits(host: Host, row: ModelRow, body: LoadWeightsRequest) -> None:
    run = _run_of(host, _training_checkpoint(host, body.path))
    if run.base_model != row.base_model:
        message = f"{body.path} was trained on {run.base_model!r}, the model on {row.base_model!r}"
        raise RequestRejected(message, field="path")
    if run.lora.model_dump(exclude={"seed"}) != row.lora.model_dump(exclude={"seed"}):
        message = f"{body.path} has {run.lora!r}, the model {row.lora!r}"
        raise RequestRejected(message, field="path")


def _create_from(host: Host, body: LoadWeightsRequest) -> Response:
    session = host.session(body.session_id or "")
    if body.model_seq_id is None:
        raise RequestRejected("is missing", field="model_seq_id", status_code=422)
    run = _run_of(host, _training_checkpoint(host, body.path))
    if body.base_model not in {None, run.base_model}:
        message = f"{body.path} was trained on {run.base_model!r}"
        raise RequestRejected(message, field="base_model")
    served = host.shelf.find(run.base_model, field="path")
    now = time.time()
    row = ModelRow(
        model_id=f"{session.session_id}:train:{body.model_seq_id}",
        session_id=session.session_id,
        base_model=run.base_model,
        lora=run.lora,
        user_metadata=body.user_metadata,
        state="live",
        created_at=now,
        last_request_at=now,
    )
    work = training_work.create_from(host, served, row, body.path, optimizer=body.optimizer)
    return promise_answer(host.runs.create("load_weights", row, work), row.model_id)


def _training_checkpoint(host: Host, tinker_path: str) -> CheckpointRow:
    checkpoint = host.checkpoints.resolve(tinker_path, field="path")
    if checkpoint.checkpoint_type != "training":
        message = f"{tinker_path} was saved for samplers: a model loads only what save_state wrote"
        raise RequestRejected(message, field="path")
    return checkpoint


def _run_of(host: Host, checkpoint: CheckpointRow) -> ModelRow:
    run = host.ledger.model(checkpoint.run_id)
    if run is None:
        raise not_found(f"the training run of {checkpoint.tinker_path} is unknown", "path")
    return run


@router.post("/weights_info")
async def weights_info(body: WeightsInfoRequest, request: Request) -> Response:
    """Tell what a checkpoint needs to be loaded."""
    host = host_of(request)
    run = _run_of(host, host.checkpoints.resolve(body.tinker_path, field="tinker_path"))
    return record_answer(
        WeightsInfoResponse(
            base_model=run.base_model,
            is_lora=True,
            lora_rank=run.lora.rank,
            train_unembed=run.lora.train_unembed,
            train_mlp=run.lora.train_mlp,
            train_attn=run.lora.train_attn,
        )
    )


@router.delete("/training_runs/{run_id}/checkpoints/{segment}/{name}")
async def delete_checkpoint(run_id: str, segment: str, name: str, request: Request) -> Response:
    """Delete a checkpoint and its files."""
    host = host_of(request)
    row = host.checkpoints.resolve(f"tinker://{run_id}/{segment}/{name}", field="checkpoint_id")
    host.sampling.snapshots.drop(row.directory)
    host.checkpoints.delete(row)
    return json_answer({})
