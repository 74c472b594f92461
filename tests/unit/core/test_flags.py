from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tests.fakes.clock import SteppedClock, settle
from tinker_ray import errors
from tinker_ray.core.flags import (
    JSON_ONLY,
    DynamicFlags,
    FlagsRefresh,
    ServerFlags,
    fetch_dynamic_flags,
    fetch_flags,
)
from tinker_ray.core.link import Link
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.scripted import Answer, ScriptedTransport, answer
from tinker_ray.version import SDK_VERSION
from tinker_ray.wire.chunking import ChunkLimits

V1 = "/api/v1/"


def link_over(**script: list[Answer]) -> tuple[Link, ScriptedTransport]:
    """A link whose paths below ``/api/v1/`` answer as scripted; ``__`` stands for a slash."""
    transport = ScriptedTransport(
        {V1 + name.replace("__", "/"): answers for name, answers in script.items()}
    )
    return Link(transport, VirtualClock()), transport


def bodies(transport: ScriptedTransport, path: str) -> list[dict[str, object]]:
    return [sent.json() for sent in transport.sent if sent.request.path == V1 + path]


async def test_a_service_that_answers_nothing_in_particular_has_the_defaults() -> None:
    link, transport = link_over(client__config=[answer({})])
    assert ServerFlags() == await fetch_flags(link)
    assert [{"sdk_version": SDK_VERSION}] == bodies(transport, "client/config")


async def test_the_service_decides_the_limits() -> None:
    config = {
        "fwdbwd_max_chunk_len": 7,
        "fwdbwd_max_chunk_bytes_count": 8,
        "sample_dispatch_bytes_semaphore_size": 9,
        "sample_max_concurrent_requests": 10,
        "a_flag_of_tomorrow": True,
    }
    link, _ = link_over(client__config=[answer(config)])
    assert ServerFlags(
        protobuf=True, chunks=ChunkLimits(7, 8), sample_bytes=9, max_samples=10
    ) == await fetch_flags(link)


async def test_a_service_that_does_not_know_the_question_speaks_json_only() -> None:
    link, transport = link_over(client__config=[answer(status=404)])
    assert JSON_ONLY == await fetch_flags(link)
    assert 128 == JSON_ONLY.chunks.max_datums
    assert 1 == len(transport.sent)


async def test_another_refusal_of_the_question_is_an_error() -> None:
    link, _ = link_over(client__config=[answer(status=401)])
    with pytest.raises(errors.AuthenticationError):
        await fetch_flags(link)


WISHES = {
    "inflight_response_bytes_semaphore_size": ("response_bytes", 11),
    "fwdbwd_dispatch_bytes_semaphore_size": ("fwdbwd_bytes", 12),
    "billing_exception_max_pause_duration_sec": ("billing_pause_s", 13),
    "pjwt_auth_enabled": ("pjwt_auth_enabled", True),
    "credential_default_source": ("credential_default_source", "credential_cmd"),
    "parallel_fwdbwd_chunks": ("parallel_fwdbwd_chunks", False),
    "proto_compress_fwdbwd": ("proto_compress_fwdbwd", True),
    "sample_no_retries": ("sample_no_retries", True),
    "sample_enable_stuck_detection": ("sample_enable_stuck_detection", False),
    "sample_use_retrieve_futures": ("sample_use_retrieve_futures", True),
    "sample_join_sampling_session": ("sample_join_sampling_session", True),
    "custom_loss_server_side": ("custom_loss_server_side", True),
}


@pytest.mark.parametrize("wish", WISHES)
async def test_each_wish_of_the_service_is_heard(wish: str) -> None:
    name, value = WISHES[wish]
    link, _ = link_over(client__config=[answer({wish: value})])
    heard = await fetch_flags(link)
    assert value == getattr(heard, name) != getattr(ServerFlags(), name)
    unchanged = {item.name for item in fields(ServerFlags)} - {name}
    assert all(getattr(ServerFlags(), item) == getattr(heard, item) for item in unchanged)


# --- what may change ------------------------------------------------------------------------------


async def test_what_may_change_is_asked_for_too() -> None:
    config = {"refresh_interval_sec": 20, "sample_cancel_enabled": True}
    link, transport = link_over(client__dynamic_config=[answer(status=503), answer(config)])
    assert DynamicFlags(20, sample_cancel_enabled=True) == await fetch_dynamic_flags(link)
    assert [{"sdk_version": SDK_VERSION}] * 2 == bodies(transport, "client/dynamic_config")


async def test_a_service_whose_flags_never_change_gives_the_defaults() -> None:
    link, _ = link_over(client__dynamic_config=[answer(status=404)])
    assert DynamicFlags() == await fetch_dynamic_flags(link)


async def test_another_refusal_to_tell_what_may_change_is_an_error() -> None:
    link, _ = link_over(client__dynamic_config=[answer(status=403)])
    with pytest.raises(errors.PermissionDeniedError):
        await fetch_dynamic_flags(link)


async def test_the_flags_of_a_link_follow_the_service_and_survive_its_silence() -> None:
    answers: list[Answer] = [
        answer({"refresh_interval_sec": 1, "sample_cancel_enabled": True}),
        answer(status=503),
        errors.APIConnectionError(),
        answer({"sample_cancel_max_batch_size": 3}),
    ]
    clock = SteppedClock()
    transport = ScriptedTransport({f"{V1}client/dynamic_config": answers})
    link = Link(transport, clock, replace(ServerFlags(), dynamic=DynamicFlags(20)))
    refresh = FlagsRefresh(link)
    refresh.start()
    await clock.advance(19.9)
    assert [] == transport.sent
    await clock.advance(0.1)
    assert DynamicFlags(1, sample_cancel_enabled=True) == link.flags.dynamic
    await clock.advance(20)  # not more often than every 10 s, whatever the service says
    assert 3 == len(transport.sent)
    assert link.flags.dynamic.sample_cancel_enabled
    await clock.advance(10)
    assert DynamicFlags(sample_cancel_max_batch_size=3) == link.flags.dynamic
    await refresh.aclose()
    await refresh.aclose()


async def test_an_old_service_is_not_asked_again() -> None:
    transport = ScriptedTransport({})
    refresh = FlagsRefresh(Link(transport, SteppedClock(), JSON_ONLY))
    refresh.start()
    await settle()
    await refresh.aclose()
    assert [] == transport.sent
