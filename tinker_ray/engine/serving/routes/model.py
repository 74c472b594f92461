"""Endpoints about models that have no place in the order of a model's operations."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving import training_work
from tinker_ray.engine.serving.answer import (
    caller_of,
    host_of,
    json_answer,
    promise_answer,
)
from tinker_ray.engine.serving.answer_schema import PromiseAnswer
from tinker_ray.engine.serving.generation import answer_keys
from tinker_ray.engine.serving.openapi import told
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.engine.serving.route import PREFIX, JsonRoute
from tinker_ray.engine.serving.schema import CreateModelRequest, ModelRequest
from tinker_ray.engine.store.row import ModelRow
from tinker_ray.types import GetInfoResponse, ModelData

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)


@router.post("/create_model", responses=told(PromiseAnswer, 400, 404, 410))
async def create_model(body: CreateModelRequest, request: Request) -> Response:
    """Make a model with fresh adapters."""
    host, owner = host_of(request), caller_of(request).owner
    session = host.session(body.session_id, owner)
    served = host.shelf.find(body.base_model)
    lora = body.lora_config.value()
    if not (lora.train_attn or lora.train_mlp or lora.train_unembed):
        message = "trains nothing: set train_attn, train_mlp or train_unembed"
        raise RequestRejected(message, field="lora_config")
    now = host.now()
    row = ModelRow(
        model_id=f"{session.session_id}:train:{body.model_seq_id}",
        session_id=session.session_id,
        base_model=served.base.name,
        lora=lora,
        user_metadata=body.user_metadata,
        state="live",
        created_at=now,
        last_request_at=now,
        owner=owner,
        optimizer=body.optimizer_config.model_dump(),
    )
    work = training_work.create(host, served, row)
    request_id = host.runs.create("create_model", row, work)
    return promise_answer(request_id, row.model_id)


@router.post("/unload_model", responses=told(PromiseAnswer, 404, 410))
async def unload_model(body: ModelRequest, request: Request) -> Response:
    """Let a model's weights go."""
    host = host_of(request)
    request_id = host.runs.accept(
        "unload_model",
        body.model_id,
        None,
        lambda row: training_work.unload(host, host.shelf.find(row.base_model), row.model_id),
        owner=caller_of(request).owner,
    )
    return promise_answer(request_id, body.model_id)


@router.post("/get_info", responses=told(GetInfoResponse, 400, 404))
async def get_info(body: ModelRequest, request: Request) -> Response:
    """Tell what a model is."""
    host = host_of(request)
    row = host.runs.model(body.model_id, caller_of(request).owner)
    served = host.shelf.find(row.base_model)
    info = GetInfoResponse(
        model_id=row.model_id,
        model_data=ModelData(
            arch=served.base.model.config.model_type,
            model_name=row.base_model,
            tokenizer_id=served.tokenizer_id,
        ),
        is_lora=True,
        lora_rank=row.lora.rank,
        model_name=row.base_model,
    )
    value = {**info.model_dump(mode="json"), "optimizer_config": dict(row.optimizer)}
    return json_answer(answer_keys(host.settings.wire, value))
