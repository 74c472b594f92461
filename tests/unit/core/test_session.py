from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tinker_ray import errors
from tinker_ray.config import Secret
from tinker_ray.core.flags import JSON_ONLY, ServerFlags
from tinker_ray.core.link import Link
from tinker_ray.core.session import ModelHandle, SessionCore, create_session
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Request, Response
from tinker_ray.transport.scripted import Answer, ScriptedTransport, answer
from tinker_ray.types import DimuonOptimizerConfig, LoraConfig
from tinker_ray.version import SDK_VERSION

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
            "sdk_version": SDK_VERSION,
            "type": "create_session",
        }
    ] == bodies(transport, "create_session")
    assert [("INFO", "hi"), ("WARNING", "old"), ("ERROR", "bad")] == [
        (record.levelname, record.getMessage().split()[-1]) for record in caplog.records
    ]


async def test_a_session_may_have_a_project_and_a_name() -> None:
    link, transport = link_over(create_session=[answer({"session_id": "S1"})])
    await create_session(link, tags=[], user_metadata=None, project_id="p", display_name="nightly")
    (body,) = bodies(transport, "create_session")
    assert ("p", "nightly") == (body["project_id"], body["display_name"])


async def test_a_session_without_an_id_is_refused() -> None:
    link, _ = link_over(create_session=[answer({})])
    with pytest.raises(errors.APIResponseValidationError, match="session_id"):
        await create_session(link, tags=[], user_metadata=None)


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
            "uploaded": {"loss_id": "L1"},
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


async def test_a_sampling_session_is_opened_on_a_path_of_the_service_only() -> None:
    session, transport = session_over()
    with pytest.raises(ValueError, match="tinker://"):
        await session.create_sampling_session(0, model_path="/home/me/weights")
    assert [] == transport.sent


async def test_a_model_may_have_another_optimizer() -> None:
    session, transport = session_over(create_model=[CREATED], load_weights=[LOADED])
    dimuon = DimuonOptimizerConfig()
    await session.create_model(4, "base", LoraConfig(rank=8), optimizer_config=dimuon)
    await session.create_model_from_state(4, PATH, optimizer=False, optimizer_config=dimuon)
    for path in ("create_model", "load_weights"):
        assert {"type": "dimuon", "version": 1} == bodies(transport, path)[0]["optimizer_config"]


async def test_a_model_may_be_made_of_somebody_elses_checkpoint_on_another_base() -> None:
    session, transport = session_over(load_weights=[LOADED])
    await session.create_model_from_state(
        4, PATH, optimizer=False, base_model="base", weights_access_token=Secret("very-secret")
    )
    (body,) = bodies(transport, "load_weights")
    assert ("base", "very-secret") == (body["base_model"], body["weights_access_token"])


@pytest.mark.parametrize(
    "wish",
    [
        {"weights_access_token": Secret("very-secret")},
        {"optimizer_config": DimuonOptimizerConfig()},
    ],
)
async def test_an_older_service_is_not_asked_for_what_it_cannot(wish: dict[str, Any]) -> None:
    session, transport = session_over(JSON_ONLY)
    with pytest.raises(errors.ConfigurationError, match="this service knows neither") as caught:
        await session.create_model_from_state(0, PATH, optimizer=False, **wish)
    assert "very-secret" not in str(caught.value)
    assert [] == transport.sent


async def test_an_older_service_makes_the_adapter_that_the_checkpoint_needs() -> None:
    info = {"base_model": "base", "is_lora": True, "lora_rank": 16, "train_unembed": False}
    session, transport = session_over(
        JSON_ONLY, weights_info=[answer(info)], create_model=[CREATED], load_weights=[LOADED]
    )
    await session.create_model_from_state(4, PATH, optimizer=False, base_model="other")
    (created,) = bodies(transport, "create_model")
    assert "other" == created["base_model"]
    assert {
        "rank": 16,
        "train_unembed": False,
        "train_mlp": True,
        "train_attn": True,
    } == created["lora_config"]


async def test_a_further_client_of_a_sampling_session_is_numbered_by_the_service() -> None:
    session, transport = session_over(join_sampling_session=[answer({"client_counter": 7})])
    assert 7 == await session.join_sampling_session("S1:sample:0")
    assert [{"sampling_session_id": "S1:sample:0", "type": "join_sampling_session"}] == bodies(
        transport, "join_sampling_session"
    )


async def test_a_custom_loss_is_uploaded_with_its_graph() -> None:
    session, transport = session_over(create_custom_loss=[answer({"request_id": "uploaded"})])
    inputs, graph = [{"name": "logprobs", "rank": 1}], {"format": 1, "nodes": []}
    assert "L1" == await session.create_custom_loss(2, "mine", inputs, graph)
    assert [
        {
            "session_id": "S1",
            "custom_loss_seq_id": 2,
            "name": "mine",
            "inputs": inputs,
            "graph": graph,
            "type": "create_custom_loss",
        }
    ] == bodies(transport, "create_custom_loss")


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
