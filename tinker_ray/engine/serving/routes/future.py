"""Endpoints about promises."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving.answer import host_of, json_answer, outcome_answer
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.engine.serving.schema import RetrieveFutureRequest
from tinker_ray.wire import codec

router = APIRouter()

_TRY_AGAIN = 408


@router.post("/retrieve_future")
async def retrieve_future(body: RetrieveFutureRequest, request: Request) -> Response:
    """Answer with the outcome of a promise as soon as there is one, else with ``try_again``."""
    host = host_of(request)
    outcome = await host.promises.get(body.request_id).wait(host.settings.long_poll_s)
    if outcome is None:
        pending = {"type": "try_again", "request_id": body.request_id, "queue_state": "active"}
        return json_answer(pending, _TRY_AGAIN)
    return await outcome_answer(outcome, request.headers.get("accept", codec.JSON))


@router.post("/cancel_future")
async def cancel_future(body: RetrieveFutureRequest, request: Request) -> Response:
    """Give a sample up; what is unknown, done or not a sample stays as it is."""
    try:
        promise = host_of(request).promises.get(body.request_id)
    except RequestRejected:
        return json_answer({})
    if promise.cancel is not None:
        promise.cancel()
    return json_answer({})
