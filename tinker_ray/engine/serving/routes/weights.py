"""Endpoints that save and load a model's weights, in the order of its operations."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving import save_work, training_work
from tinker_ray.engine.serving.answer import caller_of, host_of, promise_answer
from tinker_ray.engine.serving.answer_schema import PromiseAnswer
from tinker_ray.engine.serving.generation import check_create_from
from tinker_ray.engine.serving.openapi import told
from tinker_ray.engine.serving.rejection import RequestRejected, not_found
from tinker_ray.engine.serving.route import PREFIX, TrainingRoute
from tinker_ray.engine.serving.schema import (
    LoadWeightsRequest,
    SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
)
from tinker_ray.engine.serving.training_work import Source
from tinker_ray.engine.serving.validate import age_recipients, checkpoint_ttl
from tinker_ray.engine.store.row import ModelRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinker_ray.engine.host import Host
    from tinker_ray.engine.serving.training_runs import Work
    from tinker_ray.engine.store.row import CheckpointRow, UsageType
    from tinker_ray.types import LoraConfig

router = APIRouter(prefix=PREFIX, route_class=TrainingRoute)

_SAVED: dict[UsageType, int] = {"checkpoint": 1}


@router.post("/save_weights", responses=told(PromiseAnswer, 400, 404, 410))
async def save_weights(body: SaveWeightsRequest, request: Request) -> Response:
    """Save a model with its optimizer under a name."""
    host = host_of(request)
    checkpoint_ttl(body.ttl_seconds)

    def prepare(row: ModelRow) -> Work:
        name = body.path if body.path is not None else f"state-{int(time.time() * 1000)}"
        slot = host.checkpoints.reserve(
            row.model_id, "weights", name, owner=row.owner, overwrite=body.overwrite
        )
        return save_work.save(host, host.shelf.find(row.base_model), slot, body)

    owner = caller_of(request).owner
    request_id = host.runs.accept(
        "save_weights", body.model_id, body.seq_id, prepare, owner=owner, usage=_SAVED
    )
    return promise_answer(request_id, body.model_id)


@router.post("/save_weights_for_sampler", responses=told(PromiseAnswer, 400, 404, 410))
async def save_weights_for_sampler(
    body: SaveWeightsForSamplerRequest, request: Request
) -> Response:
    """Save weights for samplers: under a name, or for a sampling session that this opens."""
    host = host_of(request)
    checkpoint_ttl(body.ttl_seconds)

    def prepare(row: ModelRow) -> Work:
        served = host.shelf.find(row.base_model)
        if body.path is None:
            sampler_id = _new_sampler(host, row, body)
            return save_work.open_sampler(host, served, row, sampler_id, body.kind)
        if body.kind == "inflight":
            message = "inflight weights have no name: leave path out"
            raise RequestRejected(message, field="kind")
        slot = host.checkpoints.reserve(row.model_id, "sampler_weights", body.path, owner=row.owner)
        return save_work.save_for_sampler(host, served, slot, body)

    request_id = host.runs.accept(
        "save_weights_for_sampler",
        body.model_id,
        body.seq_id,
        prepare,
        owner=caller_of(request).owner,
        usage=_SAVED if body.path is not None else None,
    )
    return promise_answer(request_id, body.model_id)


def _new_sampler(host: Host, row: ModelRow, body: SaveWeightsForSamplerRequest) -> str:
    if body.sampling_session_seq_id is None:
        message = "give a name, or sampling_session_seq_id for an unnamed save"
        raise RequestRejected(message, field="path")
    sampler_id = f"{row.session_id}:sample:{body.sampling_session_seq_id}"
    if host.ledger.samplers.get(sampler_id) is not None:
        message = f"{body.sampling_session_seq_id} was already used"
        raise RequestRejected(message, field="sampling_session_seq_id")
    return sampler_id


@router.post("/save_weights_external", responses=told(PromiseAnswer, 400, 404, 410))
async def save_weights_external(body: SaveWeightsExternalRequest, request: Request) -> Response:
    """Export a model's weights as files that other tools load."""
    host = host_of(request)
    checkpoint_ttl(body.ttl_seconds)
    recipients = age_recipients(body.age_encryption_recipients)

    def prepare(row: ModelRow) -> Work:
        served = host.shelf.find(row.base_model)
        slot = host.checkpoints.reserve(
            row.model_id, "external_weights", body.path, owner=row.owner
        )
        return save_work.save_external(host, served, slot, body, recipients)

    owner = caller_of(request).owner
    request_id = host.runs.accept(
        "save_weights_external", body.model_id, body.seq_id, prepare, owner=owner, usage=_SAVED
    )
    return promise_answer(request_id, body.model_id)


@router.post("/load_weights", responses=told(PromiseAnswer, 400, 403, 404, 410))
async def load_weights(body: LoadWeightsRequest, request: Request) -> Response:
    """Load a checkpoint into a model, or make a model out of it."""
    host, owner = host_of(request), caller_of(request).owner
    readers = {owner}
    if body.weights_access_token is not None:
        readers.add(host.admission.reader(body.weights_access_token))
    source = Source(body.path, frozenset(readers), body.optimizer)
    if body.session_id is not None and body.model_id is None:
        check_create_from(host.settings.wire)
        return _create_from(host, body, source, owner)
    if body.model_id is None:
        raise RequestRejected("give model_id, or session_id for a new model", field="model_id")

    def prepare(row: ModelRow) -> Work:
        if not host.checkpoints.is_expected(body.path):
            _check_fits(host, row, source)
        return training_work.load(host, host.shelf.find(row.base_model), row.model_id, source)

    request_id = host.runs.accept("load_weights", body.model_id, body.seq_id, prepare, owner=owner)
    return promise_answer(request_id, body.model_id)


def _check_fits(host: Host, row: ModelRow, source: Source) -> None:
    path = source.tinker_path
    run = _run_of(host, _training_checkpoint(host, source))
    if run.base_model != row.base_model:
        message = f"{path} was trained on {run.base_model!r}, the model on {row.base_model!r}"
        raise RequestRejected(message, field="path")
    # Old clients make a model of all layers before they load a checkpoint of some into it.
    is_new = not host.ledger.checkpoints.of_run(row.model_id, host.now())
    if run.lora.rank != row.lora.rank or not (
        _kinds(run.lora) <= _kinds(row.lora) if is_new else _kinds(run.lora) == _kinds(row.lora)
    ):
        message = f"{path} has {run.lora!r}, the model {row.lora!r}"
        raise RequestRejected(message, field="path")


def _kinds(lora: LoraConfig) -> set[str]:
    """Name the kinds of layers that are trained."""
    return {name for name, value in lora.model_dump().items() if value is True}


def _create_from(host: Host, body: LoadWeightsRequest, source: Source, owner: str) -> Response:
    session = host.session(body.session_id or "", owner)
    if body.model_seq_id is None:
        raise RequestRejected("is missing", field="model_seq_id", status_code=422)
    checkpoint = _training_checkpoint(host, source)
    run = _run_of(host, checkpoint)
    if body.base_model not in {None, run.base_model}:
        message = f"{body.path} was trained on {run.base_model!r}"
        raise RequestRejected(message, field="base_model")
    served = host.shelf.find(run.base_model, field="path")
    now = host.now()
    row = ModelRow(
        model_id=f"{session.session_id}:train:{body.model_seq_id}",
        session_id=session.session_id,
        base_model=run.base_model,
        lora=run.lora,
        user_metadata=body.user_metadata,
        state="live",
        created_at=now,
        last_request_at=now,
        owner=owner,
        optimizer=_optimizer_of(body, run),
    )
    work = training_work.create_from(host, served, row, source)
    request_id = host.runs.create("load_weights", row, work)
    if checkpoint.owner != owner:
        host.audit.checkpoint("read", owner, checkpoint, purpose="load_weights")
    return promise_answer(request_id, row.model_id)


def _optimizer_of(body: LoadWeightsRequest, run: ModelRow) -> Mapping[str, Any]:
    """Choose a new model's optimizer: the restored one's, or whichever is asked for."""
    asked = None if body.optimizer_config is None else body.optimizer_config.model_dump()
    if asked is None:
        return run.optimizer
    if body.optimizer and asked != run.optimizer:
        message = f"{body.path} restores {dict(run.optimizer)}, which nothing else can replace"
        raise RequestRejected(message, field="optimizer_config")
    return asked


def _training_checkpoint(host: Host, source: Source) -> CheckpointRow:
    checkpoint = host.checkpoints.resolve(source.tinker_path, source.readers, field="path")
    if checkpoint.checkpoint_type != "training":
        message = (
            f"{source.tinker_path} was not saved for training: a model loads only what save_state "
            "wrote"
        )
        raise RequestRejected(message, field="path")
    return checkpoint


def _run_of(host: Host, checkpoint: CheckpointRow) -> ModelRow:
    run = host.ledger.models.get(checkpoint.run_id)
    if run is None:
        raise not_found(f"the training run of {checkpoint.tinker_path} is unknown", "path")
    return run
