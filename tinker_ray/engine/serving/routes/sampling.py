"""Endpoints that sample."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving.answer import caller_of, host_of, json_answer, record_answer
from tinker_ray.engine.serving.answer_schema import (
    Joined,
    SampleBody,
    SamplePromise,
    SamplingSession,
)
from tinker_ray.engine.serving.body import plain_body
from tinker_ray.engine.serving.generation import answer_keys
from tinker_ray.engine.serving.openapi import body_of, told
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.engine.serving.route import PREFIX, JsonRoute
from tinker_ray.engine.serving.sampling import sequence_ids
from tinker_ray.engine.serving.session_schema import (
    CreateSamplingSessionRequest,
    JoinSamplingSessionRequest,
)
from tinker_ray.engine.store.row import SamplerRow
from tinker_ray.types import GetSamplerResponse
from tinker_ray.wire import codec

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)


@router.post("/create_sampling_session", responses=told(SamplingSession, 400, 404, 410))
async def create_sampling_session(body: CreateSamplingSessionRequest, request: Request) -> Response:
    """Open a sampling session on a base model or a checkpoint."""
    host, owner = host_of(request), caller_of(request).owner
    session = host.session(body.session_id, owner)
    sampler_id = f"{session.session_id}:sample:{body.sampling_session_seq_id}"
    known = host.ledger.samplers.get(sampler_id)
    if known is not None:
        if known.model_path != body.model_path or known.ephemeral:
            message = f"{body.sampling_session_seq_id} was already used for other weights"
            raise RequestRejected(message, field="sampling_session_seq_id")
    else:
        weights = host.sampling.resolve(body.base_model, body.model_path, owner)
        row = SamplerRow(
            sampler_id=sampler_id,
            session_id=session.session_id,
            base_model=weights.base_model,
            model_path=body.model_path,
            directory=weights.directory,
            ephemeral=False,
            created_at=host.now(),
            owner=owner,
        )
        host.ledger.samplers.add(row)
    return json_answer({"sampling_session_id": sampler_id, "type": "create_sampling_session"})


@router.post("/join_sampling_session", responses=told(Joined, 404))
async def join_sampling_session(body: JoinSamplingSessionRequest, request: Request) -> Response:
    """Give one more client of a sampling session a number of its own."""
    host, owner = host_of(request), caller_of(request).owner
    row = host.sampling.sampler(body.sampling_session_id, owner, field="sampling_session_id")
    counter = host.ledger.samplers.join(row.sampler_id)
    return json_answer({"client_counter": counter, "type": "join_sampling_session"})


@router.post(
    "/asample",
    responses=told(SamplePromise, 400, 404, 413, 415, 422, 429),
    openapi_extra=body_of(SampleBody),
)
async def asample(request: Request) -> Response:
    """Accept a sampling request."""
    host = host_of(request)
    content = await plain_body(request)
    sample = codec.decode_sample(content)
    promise = await host.sampling.accept(sample, content, caller_of(request).owner)
    ids = sequence_ids(promise.request_id, sample.num_samples)
    value = {"request_id": promise.request_id, "sample_sequence_ids": ids}
    return json_answer(answer_keys(host.settings.wire, value))


@router.get("/samplers/{sampler_id}", responses=told(GetSamplerResponse, 404))
async def get_sampler(sampler_id: str, request: Request) -> Response:
    """Tell what a sampling session samples from."""
    owner = caller_of(request).owner
    row = host_of(request).sampling.sampler(sampler_id, owner, field="sampler_id")
    return record_answer(
        request,
        GetSamplerResponse(
            sampler_id=row.sampler_id, base_model=row.base_model, model_path=row.model_path
        ),
    )
