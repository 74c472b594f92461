from __future__ import annotations

import asyncio

from tinker_ray.core.sdk_method import (
    carried,
    carry,
    current_method,
    method_headers,
    own_context,
    sdk_method,
)
from tinker_ray.version import SDK_VERSION


def test_requests_are_attributed_to_the_outermost_method() -> None:
    assert {} == method_headers()
    with sdk_method("RestClient.get_session"):
        with sdk_method("RestClient.other"):
            assert "RestClient.get_session" == current_method()
        with sdk_method(None):
            assert {
                "x-sdk-version": SDK_VERSION,
                "x-sdk-method": "RestClient.get_session",
            } == method_headers()
    assert current_method() is None


async def test_tasks_inherit_the_method_unless_they_outlive_it() -> None:
    async def see() -> str | None:
        await asyncio.sleep(0)
        return current_method()

    with sdk_method("a"):
        part = asyncio.create_task(see())
        background = asyncio.create_task(see(), context=own_context())
    with sdk_method("b"):
        assert ("a", None) == (await part, await background)


def test_a_method_is_carried_into_another_process() -> None:
    trace = {"traceparent": "00-1"}
    assert trace == carry(trace)
    with sdk_method("SamplingClient.sample"):
        carrier = carry(trace)
    with carried(carrier):
        assert "SamplingClient.sample" == current_method()
    for nothing in (None, trace):
        with carried(nothing):
            assert current_method() is None
