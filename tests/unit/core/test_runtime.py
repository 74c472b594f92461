from __future__ import annotations

import asyncio
import logging

import pytest

from tests.fakes.clock import SteppedClock, settle
from tinker_ray import errors
from tinker_ray.core.link import Link
from tinker_ray.core.operation import OptimStep
from tinker_ray.core.runtime import LocalRuntime
from tinker_ray.core.session import ModelHandle, SessionCore
from tinker_ray.transport.message import Response
from tinker_ray.transport.scripted import ScriptedTransport, answer
from tinker_ray.types import AdamParams, ModelInput
from tinker_ray.wire.request import SampleRequest

FINISH = "/api/v1/sessions/S1/finish"


def runtime_over(finish: Response | Exception) -> tuple[LocalRuntime, ScriptedTransport]:
    transport = ScriptedTransport(
        {FINISH: [finish], "/api/v1/optim_step": [answer({"request_id": "r"})]}
    )
    link = Link(transport, SteppedClock())
    return LocalRuntime(link, SessionCore(link, "S1")), transport


async def test_closing_finishes_the_session_once_and_closes_the_connections() -> None:
    runtime, transport = runtime_over(answer({}))
    await runtime.aclose("errored", "why")
    await runtime.aclose()
    assert [FINISH] == transport.paths()
    assert {"reason": {"type": "errored"}, "detail": "why"} == transport.sent[0].json()
    assert transport.closed


async def test_a_session_that_cannot_be_finished_is_closed_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime, transport = runtime_over(answer(status=403))
    with caplog.at_level(logging.WARNING):
        await runtime.aclose()
    assert "could not be finished" in caplog.text
    assert transport.closed


async def test_connections_are_closed_whatever_goes_wrong() -> None:
    runtime, transport = runtime_over(RuntimeError("no threads at the end of a process"))
    with pytest.raises(RuntimeError):
        await runtime.aclose()
    assert transport.closed


async def test_closing_answers_what_is_under_way() -> None:
    runtime, transport = runtime_over(answer({}))
    transport.script["/api/v1/retrieve_future"] = [errors.APIConnectionError()]
    training = await runtime.open_training(ModelHandle("S1:train:0", first_seq=3))
    runtime.sampling.admission.limits.suspend(0.0, 100.0)
    step = asyncio.create_task(training.run(OptimStep(3, AdamParams())))
    sample = asyncio.create_task(
        runtime.sampling.sample(SampleRequest(ModelInput.empty(), sampling_session_id="s"))
    )
    await settle()
    await runtime.aclose()
    for task in (step, sample):
        with pytest.raises(errors.StaleHandleError):
            await task
