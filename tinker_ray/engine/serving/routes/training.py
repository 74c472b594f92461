"""Endpoints that train: making and unloading models, passes and optimizer steps."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving import training_work
from tinker_ray.engine.serving.answer import host_of, promise_answer, record_answer
from tinker_ray.engine.serving.body import plain_body
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.engine.serving.schema import CreateModelRequest, ModelRequest, OptimStepRequest
from tinker_ray.engine.serving.validate import training_batch
from tinker_ray.engine.store.row import ModelRow
from tinker_ray.types import GetInfoResponse, ModelData
from tinker_ray.wire import codec

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

router = APIRouter()

_LARGE_BYTES = 128 << 10


@router.post("/create_model")
async def create_model(body: CreateModelRequest, request: Request) -> Response:
    """Make a model with fresh adapters."""
    host = host_of(request)
    session = host.session(body.session_id)
    served = host.shelf.find(body.base_model)
    lora = body.lora_config.value()
    if not (lora.train_attn or lora.train_mlp or lora.train_unembed):
        message = "trains nothing: set train_attn, train_mlp or train_unembed"
        raise RequestRejected(message, field="lora_config")
    now = time.time()
    row = ModelRow(
        model_id=f"{session.session_id}:train:{body.model_seq_id}",
        session_id=session.session_id,
        base_model=served.base.name,
        lora=lora,
        user_metadata=body.user_metadata,
        state="live",
        created_at=now,
        last_request_at=now,
    )
    work = training_work.create(host, served, row)
    request_id = host.runs.create("create_model", row, work)
    return promise_answer(request_id, row.model_id)


@router.post("/forward")
async def forward(request: Request) -> Response:
    """Compute a loss, as old clients ask for it."""
    return await _accept_batch(request, forward_only=True)


@router.post("/forward_backward")
async def forward_backward(request: Request) -> Response:
    """Compute a loss, and its gradient unless the request is forward-only."""
    return await _accept_batch(request, forward_only=False)


async def _accept_batch(request: Request, *, forward_only: bool) -> Response:
    host = host_of(request)
    content = await plain_body(request)
    content_type = request.headers.get("content-type", codec.JSON)
    in_thread = len(content) > _LARGE_BYTES
    asked = await _call(in_thread, codec.decode_forward_backward, content, content_type)
    if forward_only and not asked.forward_only:
        raise RequestRejected("is missing", field="forward_input", status_code=422)
    model = host.runs.model(asked.model_id)
    served = host.shelf.find(model.base_model)
    sources = host.loss_sources(model.session_id)
    batch = await _call(in_thread, training_batch, asked, served.base, sources)
    request_id = host.runs.accept(
        "forward" if asked.forward_only else "forward_backward",
        asked.model_id,
        asked.seq_id,
        lambda row: training_work.forward(served, row.model_id, batch),
    )
    return promise_answer(request_id, asked.model_id)


async def _call(
    in_thread: bool,  # noqa: FBT001 - a function that forwards a call
    function: Callable[P, T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    if in_thread:
        return await asyncio.to_thread(function, *args, **kwargs)
    return function(*args, **kwargs)


@router.post("/optim_step")
async def optim_step(body: OptimStepRequest, request: Request) -> Response:
    """Apply the summed gradients."""
    host = host_of(request)
    params = body.params()
    request_id = host.runs.accept(
        "optim_step",
        body.model_id,
        body.seq_id,
        lambda row: training_work.optim_step(host.shelf.find(row.base_model), row.model_id, params),
    )
    return promise_answer(request_id, body.model_id)


@router.post("/unload_model")
async def unload_model(body: ModelRequest, request: Request) -> Response:
    """Let a model's weights go."""
    host = host_of(request)
    request_id = host.runs.accept(
        "unload_model",
        body.model_id,
        None,
        lambda row: training_work.unload(host, host.shelf.find(row.base_model), row.model_id),
    )
    return promise_answer(request_id, body.model_id)


@router.post("/get_info")
async def get_info(body: ModelRequest, request: Request) -> Response:
    """Tell what a model is."""
    host = host_of(request)
    row = host.runs.model(body.model_id)
    served = host.shelf.find(row.base_model)
    return record_answer(
        GetInfoResponse(
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
    )
