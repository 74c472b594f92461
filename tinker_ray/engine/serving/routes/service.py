"""Endpoints about the engine itself."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving.answer import (
    caller_of,
    host_of,
    json_answer,
    record_answer,
)
from tinker_ray.engine.serving.answer_schema import Accepted, Flags, Health
from tinker_ray.engine.serving.openapi import told
from tinker_ray.engine.serving.route import PREFIX, JsonRoute
from tinker_ray.engine.serving.session_schema import ClientConfigRequest, TelemetryRequest
from tinker_ray.types import GetServerCapabilitiesResponse, SupportedModel

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)


@router.get("/healthz", responses=told(Health))
async def healthz() -> Response:
    """Say that the engine answers."""
    return json_answer({"status": "ok"})


@router.get("/get_server_capabilities", responses=told(GetServerCapabilitiesResponse))
async def get_server_capabilities(request: Request) -> Response:
    """List the base models."""
    models = [
        SupportedModel(
            model_name=served.base.name,
            max_context_length=served.base.context_length,
            trainable=True,
            sampleable=True,
        )
        for served in host_of(request).shelf
    ]
    return record_answer(request, GetServerCapabilitiesResponse(supported_models=models))


@router.post("/client/config", responses=told(Flags))
async def client_config(body: ClientConfigRequest, request: Request) -> Response:  # noqa: ARG001
    """Tell clients what to do differently from their defaults."""
    return json_answer(host_of(request).settings.flags.config())


@router.post("/client/dynamic_config", responses=told(Flags))
async def client_dynamic_config(body: ClientConfigRequest, request: Request) -> Response:  # noqa: ARG001
    """Tell clients what may change while they run."""
    return json_answer(host_of(request).settings.flags.dynamic_config())


@router.post("/telemetry", responses=told(Accepted))
async def telemetry(body: TelemetryRequest, request: Request) -> Response:
    """Take a client's reports, which end in a file of bounded size."""
    owner = caller_of(request).owner
    host_of(request).telemetry.write({"owner": owner, **body.model_dump()})
    return json_answer({"status": "accepted"})
