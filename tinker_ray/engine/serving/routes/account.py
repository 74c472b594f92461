"""Endpoints about the caller's own credential."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving.answer import caller_of, host_of, json_answer
from tinker_ray.engine.serving.answer_schema import ApiKeyInfo, IssuedToken
from tinker_ray.engine.serving.openapi import told
from tinker_ray.engine.serving.route import PREFIX, JsonRoute

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)

_ORGANIZATION = "tinker-ray engine"


@router.post("/auth/token", responses=told(IssuedToken))
async def issue_token(request: Request) -> Response:
    """Exchange the credential of the request for a token that expires."""
    credential = request.headers.get("x-api-key", "").encode("latin-1")
    return json_answer({"jwt": host_of(request).admission.issue(credential)})


@router.get("/auth/apikey/me", responses=told(ApiKeyInfo))
async def describe_api_key(request: Request) -> Response:
    """Tell what the engine knows of the caller's key."""
    caller = caller_of(request)
    return json_answer(
        {
            "key_id": caller.key_id or 0,
            "name": caller.owner,
            "note": "",
            "details": {
                "org_details": {"name": _ORGANIZATION},
                "user_details": {"email": ""},
            },
        }
    )


@router.delete("/auth/apikey/me", responses=told(None, 400))
async def delete_api_key(request: Request) -> Response:
    """Revoke the caller's key, for good; what was made with it stays its owner's."""
    host, caller = host_of(request), caller_of(request)
    host.admission.revoke(caller)
    host.audit.key_deleted(caller.owner, caller.key_id or 0)
    return json_answer({})
