"""Endpoints that sample."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving.answer import host_of, json_answer, record_answer
from tinker_ray.engine.serving.body import plain_body
from tinker_ray.engine.serving.rejection import RequestRejected, not_found
from tinker_ray.engine.serving.schema import (
    CreateSamplingSessionRequest,
    JoinSamplingSessionRequest,
)
from tinker_ray.engine.serving.validate import unsupported_sample_keys
from tinker_ray.engine.store.row import SamplerRow
from tinker_ray.types import GetSamplerResponse
from tinker_ray.wire import codec, json_value

router = APIRouter()


@router.post("/create_sampling_session")
async def create_sampling_session(body: CreateSamplingSessionRequest, request: Request) -> Response:
    """Open a sampling session on a base model or a checkpoint."""
    host = host_of(request)
    session = host.session(body.session_id)
    sampler_id = f"{session.session_id}:sample:{body.sampling_session_seq_id}"
    known = host.ledger.sampler(sampler_id)
    if known is not None:
        if known.model_path != body.model_path or known.ephemeral:
            message = f"{body.sampling_session_seq_id} was already used for other weights"
            raise RequestRejected(message, field="sampling_session_seq_id")
    else:
        weights = host.sampling.resolve(body.base_model, body.model_path)
        row = SamplerRow(
            sampler_id=sampler_id,
            session_id=session.session_id,
            base_model=weights.base_model,
            model_path=body.model_path,
            directory=weights.directory,
            ephemeral=False,
            created_at=time.time(),
        )
        host.ledger.add_sampler(row)
    return json_answer({"sampling_session_id": sampler_id, "type": "create_sampling_session"})


@router.post("/join_sampling_session")
async def join_sampling_session(body: JoinSamplingSessionRequest, request: Request) -> Response:
    """Give one more client of a sampling session a number of its own."""
    counter = host_of(request).ledger.join_sampler(body.sampling_session_id)
    if counter is None:
        message = f"there is no sampling session {body.sampling_session_id!r}"
        raise not_found(message, "sampling_session_id")
    return json_answer({"client_counter": counter, "type": "join_sampling_session"})


@router.post("/asample")
async def asample(request: Request) -> Response:
    """Accept a sampling request."""
    content = await plain_body(request)
    unsupported_sample_keys(json_value.loads(content))
    sample = codec.decode_sample(content)
    promise = await host_of(request).sampling.accept(sample, content)
    ids = [f"{promise.request_id}/{index}" for index in range(sample.num_samples)]
    return json_answer({"request_id": promise.request_id, "sample_sequence_ids": ids})


@router.get("/samplers/{sampler_id}")
async def get_sampler(sampler_id: str, request: Request) -> Response:
    """Tell what a sampling session samples from."""
    row = host_of(request).ledger.sampler(sampler_id)
    if row is None:
        raise not_found(f"there is no sampler {sampler_id!r}", "sampler_id")
    return record_answer(
        GetSamplerResponse(
            sampler_id=row.sampler_id, base_model=row.base_model, model_path=row.model_path
        )
    )
