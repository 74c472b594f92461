"""Endpoints that tell what a checkpoint is, and copy it without copying bytes."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Header, Request, Response

from tinker_ray.engine.serving.answer import caller_of, host_of, json_answer
from tinker_ray.engine.serving.answer_schema import CopiedWeights
from tinker_ray.engine.serving.generation import answer_keys
from tinker_ray.engine.serving.openapi import told
from tinker_ray.engine.serving.rejection import RequestRejected, not_found
from tinker_ray.engine.serving.route import PREFIX, JsonRoute
from tinker_ray.engine.serving.schema import CopyWeightsRequest, WeightsInfoRequest
from tinker_ray.engine.serving.validate import checkpoint_ttl
from tinker_ray.engine.store.row import ModelRow
from tinker_ray.types import WeightsInfoResponse

if TYPE_CHECKING:
    from tinker_ray.engine.host import Host
    from tinker_ray.engine.store.row import CheckpointRow

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)


@router.post("/copy_weights", responses=told(CopiedWeights, 400, 403, 404, 410))
async def copy_weights(
    body: CopyWeightsRequest,
    request: Request,
    x_tinker_weights_access_token: Annotated[str | None, Header(max_length=8192)] = None,
    x_idempotency_key: Annotated[str | None, Header(max_length=512)] = None,
) -> Response:
    """Copy a checkpoint into a run of its own; a repetition under one key finds the same copy."""
    host, owner = host_of(request), caller_of(request).owner
    if x_idempotency_key is not None:
        known = host.ledger.answers.get(owner, x_idempotency_key)
        if known is not None and "tinker_path" in known:
            return json_answer(known)
    ttl_s = checkpoint_ttl(body.ttl_seconds)
    readers = {owner}
    token = x_tinker_weights_access_token or body.weights_access_token
    if token is not None:
        readers.add(host.admission.reader(token))
    source = host.checkpoints.resolve(body.source_path, readers, field="source_path")
    run = _run(host, body, _run_of(host, source, "source_path"), owner)
    host.ledger.models.add(run)
    row = host.checkpoints.copy(source, run.model_id, owner=owner, ttl_s=ttl_s)
    host.audit.checkpoint("read", owner, source, purpose="copy_weights")
    host.audit.checkpoint("created", owner, row, copied_from=source.tinker_path)
    answer = {"tinker_path": row.tinker_path}
    if x_idempotency_key is not None:
        host.ledger.answers.put(owner, x_idempotency_key, answer, host.now())
    return json_answer(answer)


def _run(host: Host, body: CopyWeightsRequest, source: ModelRow, owner: str) -> ModelRow:
    """Make the run of a copy, which cannot be trained."""
    session_id, project_id = "", body.destination_project_id
    if (project_id is None) == (body.session_id is None):
        message = "give destination_project_id, or session_id and model_seq_id"
        raise RequestRejected(message, field="destination_project_id")
    if body.session_id is None:
        model_id = f"{uuid.uuid4()}:train:0"
    elif body.model_seq_id is None:
        raise RequestRejected("is missing", field="model_seq_id", status_code=422)
    else:
        session_id = host.session(body.session_id, owner).session_id
        model_id = f"{session_id}:train:{body.model_seq_id}"
    if host.ledger.models.get(model_id) is not None:
        raise RequestRejected(f"{body.model_seq_id} was already used", field="model_seq_id")
    now = host.now()
    return ModelRow(
        model_id=model_id,
        session_id=session_id,
        base_model=source.base_model,
        lora=source.lora,
        user_metadata=None,
        state="copied",
        created_at=now,
        last_request_at=now,
        owner=owner,
        project_id=project_id,
        optimizer=source.optimizer,
    )


@router.post("/weights_info", responses=told(WeightsInfoResponse, 400, 404))
async def weights_info(body: WeightsInfoRequest, request: Request) -> Response:
    """Tell what a checkpoint needs to be loaded."""
    host = host_of(request)
    readers = {caller_of(request).owner}
    row = host.checkpoints.resolve(body.tinker_path, readers, field="tinker_path")
    run = _run_of(host, row, "tinker_path")
    info = WeightsInfoResponse(
        base_model=run.base_model,
        is_lora=True,
        lora_rank=run.lora.rank,
        train_unembed=run.lora.train_unembed,
        train_mlp=run.lora.train_mlp,
        train_attn=run.lora.train_attn,
    )
    value = {**info.model_dump(mode="json"), "optimizer_config": dict(run.optimizer)}
    return json_answer(answer_keys(host.settings.wire, value))


def _run_of(host: Host, checkpoint: CheckpointRow, field: str) -> ModelRow:
    run = host.ledger.models.get(checkpoint.run_id)
    if run is None:
        raise not_found(f"the training run of {checkpoint.tinker_path} is unknown", field)
    return run
