"""Endpoints about promises."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving.answer import caller_of, host_of, json_answer, outcome_answer
from tinker_ray.engine.serving.answer_schema import Completions
from tinker_ray.engine.serving.openapi import told, told_outcome
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.engine.serving.route import PREFIX, JsonRoute
from tinker_ray.engine.serving.session_schema import (
    CancelFutureRequest,
    RetrieveFutureRequest,
    RetrieveFuturesRequest,
)

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)

_TRY_AGAIN = 408


@router.post("/retrieve_future", responses=told_outcome(404, 406, 410))
async def retrieve_future(body: RetrieveFutureRequest, request: Request) -> Response:
    """Answer with the outcome of a promise as soon as there is one, else with ``try_again``.

    Of a large one only the size, if the client allows that: it makes room and asks again.
    """
    host, owner = host_of(request), caller_of(request).owner
    promise = host.promises.get(body.request_id, owner)
    outcome = await promise.wait(host.settings.long_poll_s)
    if outcome is None:
        pending = {"type": "try_again", "request_id": body.request_id, "queue_state": "active"}
        return json_answer(pending, _TRY_AGAIN)
    size_bytes = len(outcome.body)
    has_arrays = outcome.form in {"output", "sample"}
    if body.allow_metadata_only and has_arrays and size_bytes > host.settings.large_result_bytes:
        return json_answer({"status": "complete_metadata", "response_payload_size": size_bytes})
    answer = await outcome_answer(request, outcome)
    if promise.target is not None:
        host.sampling.acknowledge([promise.request_id])
    return answer


@router.post("/retrieve_futures", responses=told(Completions, 404))
async def retrieve_futures(body: RetrieveFuturesRequest, request: Request) -> Response:
    """Tell which samples of one client of a sampling session have ended, as soon as some have."""
    host, owner = host_of(request), caller_of(request).owner
    sampler_id = body.target.sampling_session_id
    host.sampling.sampler(sampler_id, owner, field="target.sampling_session_id")
    target = (sampler_id, body.target.cloned_sampler_id)
    feed = host.promises.completions.find(target)
    if feed is None:
        promised = host.sampling.promised(target)
        feed = host.promises.open_feed(target, body.prev_cursor, promised)
    host.sampling.acknowledge(feed.confirm(body.prev_cursor))
    for request_id in body.retrieved_request_ids:
        host.promises.forget(request_id, target)
    timeout_s = host.settings.long_poll_s if body.timeout is None else body.timeout
    completions, cursor = await feed.read(min(timeout_s, host.settings.long_poll_s))
    return json_answer({"completions": [item.value() for item in completions], "cursor": cursor})


@router.post("/cancel_future", responses=told(None))
async def cancel_future(body: CancelFutureRequest, request: Request) -> Response:
    """Give a sample up; what is unknown, done or not a sample stays as it is."""
    host = host_of(request)
    try:
        promise = host.promises.get(body.request_id, caller_of(request).owner)
    except RequestRejected:
        return json_answer({})
    if promise.cancel is not None:
        promise.cancel()
        host.sampling.acknowledge([promise.request_id])
    return json_answer({})
