from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping

import pytest

from tests.fakes.clock import SteppedClock, settle
from tinker_ray import errors
from tinker_ray.core.flags import JSON_ONLY, ServerFlags
from tinker_ray.core.link import Link
from tinker_ray.core.session import Heartbeat, ModelHandle, SessionCore, create_session
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Request, Response
from tinker_ray.transport.scripted import Answer, ScriptedTransport, answer
from tinker_ray.types import LoraConfig
from tinker_ray.version import __version__

V1 = "/api/v1/"
PATH = "tinker://S0:train:0/weights/a"


def link_over(**script: list[Answer]) -> tuple[Link, ScriptedTransport]:
    """A link whose paths below ``/api/v1/`` answer as scripted; ``__`` stands for a slash."""
    transport = ScriptedTransport(
        {V1 + name.replace("__", "/"): answers for name, answers in script.items()}
    )
    return Link(transport, VirtualClock()), transport


def bodies(transport: ScriptedTransport, path: str) -> list[dict[str, object]]:
    return [sent.json() for sent in transport.sent if sent.request.path == V1 + path]


# --- opening ------------------------------------------------------------------------------------


async def test_creating_a_session_says_who_we_are_and_passes_messages_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    created = {
        "session_id": "S1",
        "info_message": "hi",
        "warning_message": "old",
        "error_message": "bad",
    }
    link, transport = link_over(create_session=[answer(created)])
    with caplog.at_level(logging.INFO, logger="tinker_ray"):
        assert "S1" == await create_session(link, tags=["a"], user_metadata=None)
    assert [
        {
            "tags": ["a"],
            "user_metadata": {},
            "sdk_version": __version__,
            "type": "create_session",
        }
    ] == bodies(transport, "create_session")
    assert [("INFO", "hi"), ("WARNING", "old"), ("ERROR", "bad")] == [
        (record.levelname, record.getMessage().split()[-1]) for record in caplog.records
    ]


async def test_a_session_without_an_id_is_refused() -> None:
    link, _ = link_over(create_session=[answer({})])
    with pytest.raises(errors.APIResponseValidationError, match="session_id"):
        await create_session(link, tags=[], user_metadata=None)


# --- heartbeat ------------------------------------------------------------------------------------


class Heart:
    """A session whose heartbeats are answered by ``outcome``."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.outcome: Response | Exception = answer({"type": "session_heartbeat"})
        self.times: list[float] = []
        self.session = SessionCore(Link(self, self.clock), "S1")
        self.heartbeat = Heartbeat(self.session)

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:  # noqa: ARG002
        assert {"session_id": "S1", "type": "session_heartbeat"} == json.loads(request.content)
        self.times.append(self.clock.now())
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def aclose(self) -> None: ...


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


async def test_the_heart_beats_every_ten_seconds_after_the_first_ten() -> None:
    heart = Heart()
    await heart.clock.advance(35.0)
    assert [10.0, 20.0, 30.0] == heart.times
    await heart.heartbeat.stop()
    assert not heart.heartbeat.alive


@pytest.mark.parametrize(
    "failure",
    [
        answer(status=500),
        answer(status=404),
        answer(status=401),
        errors.APIConnectionError(),
        errors.APITimeoutError(),
        Response(200, {}, b"<html>"),
    ],
)
async def test_failed_beats_are_warned_of_at_each_beat_after_two_minutes(
    failure: Response | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    heart = Heart()
    heart.outcome = failure
    await heart.clock.advance(120.0)
    assert [] == warnings(caplog)
    await heart.clock.advance(20.0)
    assert ["130 s", "140 s"] == [text.split("for ")[1][:5] for text in warnings(caplog)]
    assert 14 == len(heart.times)
    assert heart.heartbeat.alive
    await heart.heartbeat.stop()


async def test_a_success_ends_the_silence(caplog: pytest.LogCaptureFixture) -> None:
    heart = Heart()
    for _ in range(3):
        heart.outcome = errors.APIConnectionError()
        await heart.clock.advance(100.0)
        heart.outcome = answer({})
        await heart.clock.advance(10.0)
    assert [] == warnings(caplog)
    await heart.heartbeat.stop()


@pytest.mark.parametrize("end", [answer(status=410), errors.StaleHandleError("closed")])
async def test_the_heart_stops_when_the_session_or_the_link_is_over(
    end: Response | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    heart = Heart()
    heart.outcome = end
    await heart.clock.advance(500.0)
    assert [10.0] == heart.times
    assert not heart.heartbeat.alive
    assert [] == warnings(caplog)
    await heart.heartbeat.stop()


async def test_stopping_twice_is_fine() -> None:
    heart = Heart()
    await settle()
    await asyncio.gather(heart.heartbeat.stop(), heart.heartbeat.stop())
    assert [] == heart.times


# --- what a session makes -------------------------------------------------------------------------

CREATED = answer({"request_id": "created"})
LOADED = answer({"request_id": "loaded"})


def session_over(
    flags: ServerFlags | None = None, **script: list[Answer]
) -> tuple[SessionCore, ScriptedTransport]:
    def keep(request: Request) -> Response:
        kept = {
            "created": {"model_id": "S1:train:4"},
            "loaded": {"path": PATH},
        }
        return answer(kept[json.loads(request.content)["request_id"]])

    link, transport = link_over(retrieve_future=[keep], **script)
    link.flags = flags or ServerFlags()
    return SessionCore(link, "S1"), transport


async def test_a_model_is_created_as_the_contract_says() -> None:
    session, transport = session_over(create_model=[CREATED])
    model = await session.create_model(4, "base", LoraConfig(rank=8), {"k": "v"})
    assert ModelHandle("S1:train:4", first_seq=1) == model
    assert [
        {
            "session_id": "S1",
            "model_seq_id": 4,
            "base_model": "base",
            "lora_config": {
                "rank": 8,
                "train_unembed": True,
                "train_mlp": True,
                "train_attn": True,
            },
            "user_metadata": {"k": "v"},
            "type": "create_model",
        }
    ] == bodies(transport, "create_model")


@pytest.mark.parametrize("optimizer", [True, False])
async def test_a_model_is_created_by_loading_in_one_request(optimizer: bool) -> None:  # noqa: FBT001
    session, transport = session_over(load_weights=[LOADED])
    model = await session.create_model_from_state(4, PATH, optimizer=optimizer)
    assert ModelHandle("S1:train:4", first_seq=1) == model
    assert [V1 + "load_weights", V1 + "retrieve_future"] == transport.paths()
    assert [
        {
            "session_id": "S1",
            "model_seq_id": 4,
            "path": PATH,
            "optimizer": optimizer,
            "type": "load_weights",
        }
    ] == bodies(transport, "load_weights")


@pytest.mark.parametrize("optimizer", [True, False])
async def test_an_older_service_creates_first_and_loads_as_operation_one(optimizer: bool) -> None:  # noqa: FBT001
    info = {"base_model": "base", "is_lora": True, "lora_rank": 16}
    session, transport = session_over(
        JSON_ONLY, weights_info=[answer(info)], create_model=[CREATED], load_weights=[LOADED]
    )
    model = await session.create_model_from_state(4, PATH, optimizer=optimizer)
    assert ModelHandle("S1:train:4", first_seq=2) == model
    assert [
        V1 + "weights_info",
        V1 + "create_model",
        V1 + "retrieve_future",
        V1 + "load_weights",
        V1 + "retrieve_future",
    ] == transport.paths()
    assert [{"tinker_path": PATH}] == bodies(transport, "weights_info")
    (created,) = bodies(transport, "create_model")
    assert ("base", 4) == (created["base_model"], created["model_seq_id"])
    assert {
        "rank": 16,
        "train_unembed": True,
        "train_mlp": True,
        "train_attn": True,
    } == created["lora_config"]
    assert [
        {
            "model_id": "S1:train:4",
            "seq_id": 1,
            "path": PATH,
            "optimizer": optimizer,
            "type": "load_weights",
        }
    ] == bodies(transport, "load_weights")


@pytest.mark.parametrize("info", [{"is_lora": False, "lora_rank": 4}, {"is_lora": True}])
async def test_an_older_service_trains_only_what_is_a_lora_checkpoint(
    info: dict[str, object],
) -> None:
    session, _ = session_over(JSON_ONLY, weights_info=[answer({"base_model": "base", **info})])
    with pytest.raises(errors.ConfigurationError, match="no LoRA checkpoint"):
        await session.create_model_from_state(0, PATH, optimizer=False)


@pytest.mark.parametrize(
    "target", [{"base_model": "base"}, {"model_path": "tinker://r/sampler_weights/a"}]
)
async def test_a_sampling_session_is_opened_on_what_is_asked_for(target: dict[str, str]) -> None:
    session, transport = session_over(
        create_sampling_session=[answer({"sampling_session_id": "S1:sample:3"})]
    )
    assert "S1:sample:3" == await session.create_sampling_session(3, **target)
    assert [
        {
            "session_id": "S1",
            "sampling_session_seq_id": 3,
            "type": "create_sampling_session",
            **target,
        }
    ] == bodies(transport, "create_sampling_session")


async def test_capabilities_list_the_models() -> None:
    session, _ = session_over(
        get_server_capabilities=[answer({"supported_models": [{"model_name": "base"}]})]
    )
    capabilities = await session.get_server_capabilities()
    assert ["base"] == [model.model_name for model in capabilities.supported_models]


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("detail,expected", [("why", {"detail": "why"}), (None, {"detail": None})])
async def test_finishing_tells_the_reason(detail: str | None, expected: dict[str, object]) -> None:
    session, transport = session_over(sessions__S1__finish=[answer({})])
    await session.finish("errored", detail)
    assert [{"reason": {"type": "errored"}, **expected}] == bodies(transport, "sessions/S1/finish")


async def test_a_service_that_cannot_finish_sessions_is_fine() -> None:
    session, transport = session_over(sessions__S1__finish=[answer(status=404)])
    await session.finish("success")
    assert 1 == len(transport.sent)


async def test_a_refusal_to_finish_is_an_error() -> None:
    session, _ = session_over(sessions__S1__finish=[answer(status=403)])
    with pytest.raises(errors.PermissionDeniedError):
        await session.finish("success")
