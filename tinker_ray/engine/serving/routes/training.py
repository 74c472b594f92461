"""Endpoints that train: passes and optimizer steps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving import training_work
from tinker_ray.engine.serving.answer import caller_of, host_of, promise_answer
from tinker_ray.engine.serving.answer_schema import ForwardBackwardBody, ForwardBody, PromiseAnswer
from tinker_ray.engine.serving.body import plain_body
from tinker_ray.engine.serving.generation import check_batch_encoding
from tinker_ray.engine.serving.openapi import body_of, told
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.engine.serving.route import PREFIX, TrainingRoute
from tinker_ray.engine.serving.schema import OptimStepRequest
from tinker_ray.engine.serving.validate import training_batch
from tinker_ray.wire import codec

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

router = APIRouter(prefix=PREFIX, route_class=TrainingRoute)

_LARGE_BYTES = 128 << 10
_REFUSALS = (400, 404, 410, 413, 415, 422)


@router.post(
    "/forward",
    responses=told(PromiseAnswer, *_REFUSALS),
    openapi_extra=body_of(ForwardBody),
)
async def forward(request: Request) -> Response:
    """Compute a loss, as old clients ask for it."""
    return await _accept_batch(request, forward_only=True)


@router.post(
    "/forward_backward",
    responses=told(PromiseAnswer, *_REFUSALS),
    openapi_extra=body_of(ForwardBackwardBody, protobuf=True),
)
async def forward_backward(request: Request) -> Response:
    """Compute a loss, and its gradient unless the request is forward-only."""
    return await _accept_batch(request, forward_only=False)


async def _accept_batch(request: Request, *, forward_only: bool) -> Response:
    host, owner = host_of(request), caller_of(request).owner
    content_type = request.headers.get("content-type", codec.JSON)
    check_batch_encoding(host.settings.wire, content_type)
    content = await plain_body(request)
    in_thread = len(content) > _LARGE_BYTES
    asked = await _call(in_thread, codec.decode_forward_backward, content, content_type)
    if forward_only and not asked.forward_only:
        raise RequestRejected("is missing", field="forward_input", status_code=422)
    model = host.runs.model(asked.model_id, owner)
    served = host.shelf.find(model.base_model)
    sources = host.loss_sources(model.session_id)
    batch = await _call(in_thread, training_batch, asked, served.base, sources)
    request_id = host.runs.accept(
        "forward" if asked.forward_only else "forward_backward",
        asked.model_id,
        asked.seq_id,
        lambda row: training_work.forward(served, row.model_id, batch),
        owner=owner,
        usage={"training": sum(row.length for row in batch.rows)},
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


@router.post("/optim_step", responses=told(PromiseAnswer, 400, 404, 410))
async def optim_step(body: OptimStepRequest, request: Request) -> Response:
    """Apply the summed gradients."""
    host = host_of(request)
    params = body.params()
    request_id = host.runs.accept(
        "optim_step",
        body.model_id,
        body.seq_id,
        lambda row: training_work.optim_step(host.shelf.find(row.base_model), row.model_id, params),
        owner=caller_of(request).owner,
    )
    return promise_answer(request_id, body.model_id)
