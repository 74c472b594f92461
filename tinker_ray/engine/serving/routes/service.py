"""Endpoints about the engine itself."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving.answer import host_of, json_answer, record_answer
from tinker_ray.engine.serving.schema import TelemetryRequest
from tinker_ray.types import GetServerCapabilitiesResponse, SupportedModel

router = APIRouter()

_REFRESH_INTERVAL_S = 300


@router.get("/healthz")
async def healthz() -> Response:
    """Say that the engine answers."""
    return json_answer({"status": "ok"})


@router.get("/get_server_capabilities")
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
    return record_answer(GetServerCapabilitiesResponse(supported_models=models))


@router.post("/client/config")
async def client_config() -> Response:
    """Tell clients what to do differently from their defaults."""
    return json_answer({"parallel_fwdbwd_chunks": False, "proto_compress_fwdbwd": False})


@router.post("/client/dynamic_config")
async def client_dynamic_config() -> Response:
    """Tell clients what may change while they run."""
    return json_answer({"refresh_interval_sec": _REFRESH_INTERVAL_S, "sample_cancel_enabled": True})


@router.post("/telemetry")
async def telemetry(body: TelemetryRequest) -> Response:  # noqa: ARG001 - checked, not kept
    """Take a client's reports, and keep nothing of them."""
    return json_answer({"status": "accepted"})
