"""The endpoint of signed links, which asks for no key."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving.answer import host_of
from tinker_ray.engine.serving.download_answer import answer_download
from tinker_ray.engine.serving.openapi import told_file
from tinker_ray.engine.serving.route import PREFIX, JsonRoute

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)


@router.get(
    "/downloads/{token}",
    responses=told_file(403, 404, 416),
)
async def download(token: str, request: Request) -> Response:
    """Send a file, or the part of it that ``Range`` asks for."""
    return await answer_download(request, host_of(request).downloads, token)


@router.head("/downloads/{token}", responses=told_file(403, 404, 416), include_in_schema=False)
async def measure_download(token: str, request: Request) -> Response:
    """Tell what a download would be."""
    return await answer_download(request, host_of(request).downloads, token)
