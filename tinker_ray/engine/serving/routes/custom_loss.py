"""The endpoint that takes custom losses."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving.answer import caller_of, host_of, promise_answer
from tinker_ray.engine.serving.answer_schema import PromiseAnswer
from tinker_ray.engine.serving.openapi import told
from tinker_ray.engine.serving.operation import json_outcome
from tinker_ray.engine.serving.rejection import rejected
from tinker_ray.engine.serving.route import PREFIX, JsonRoute
from tinker_ray.engine.serving.schema import CreateCustomLossRequest
from tinker_ray.engine.serving.training_runs import CREATION_SEQ
from tinker_ray.engine.store.row import LossRow
from tinker_ray.errors import EngineError

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)

_KIND = "create_custom_loss"


@router.post("/create_custom_loss", responses=told(PromiseAnswer, 400, 404, 410))
async def create_custom_loss(body: CreateCustomLossRequest, request: Request) -> Response:
    """Keep a traced loss for the training runs of a session."""
    host, owner = host_of(request), caller_of(request).owner
    session = host.session(body.session_id, owner)
    loss_id = f"{session.session_id}:loss:{body.custom_loss_seq_id}"
    known = host.promises.find_training(_KIND, loss_id, CREATION_SEQ)
    if known is not None:
        return promise_answer(known, loss_id)
    row = LossRow(
        loss_id=loss_id,
        session_id=session.session_id,
        name=body.name,
        inputs=[item.model_dump() for item in body.inputs],
        graph=body.graph.model_dump(by_alias=True),
        created_at=host.now(),
    )
    try:
        host.losses.add(row)
    except EngineError as error:
        raise rejected(error) from error
    promise = host.promises.open_training(_KIND, loss_id, CREATION_SEQ, owner)
    outcome = json_outcome({"loss_id": loss_id, "type": _KIND})
    await host.promises.settle_training(promise, outcome)
    return promise_answer(promise.request_id, loss_id)
