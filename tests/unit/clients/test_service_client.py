from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.ports import FakeRuntime
from tinker_ray import errors
from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.service import ServiceClient
from tinker_ray.clients.session import ClientSession
from tinker_ray.config import Settings
from tinker_ray.core.operation import OptimStep
from tinker_ray.core.session import ModelHandle
from tinker_ray.types import AdamParams, LoraConfig, RetryConfig

STATE = "tinker://m/weights/a"


class Services:
    """Service clients over a fake runtime; counts how often one was opened."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        self.num_openings = 0
        self.failures: list[Exception] = []
        self.sessions: list[ClientSession] = []

    async def _open(
        self,
        settings: Settings,  # noqa: ARG002
        user_metadata: object,
        mode: str,
        display_name: str | None,
    ) -> FakeRuntime:
        self.num_openings += 1
        self.arguments = (user_metadata, mode, display_name)
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop()
        return self.runtime

    def client(self) -> ServiceClient:
        self.sessions.append(
            ClientSession(Settings(mode="local"), {"team": "rl"}, opener=self._open)
        )
        return ServiceClient.over(self.sessions[-1])


@pytest.fixture
def services() -> Iterator[Services]:
    made = Services()
    yield made
    for session in made.sessions:
        session.close("success")


async def opened(client: ServiceClient) -> None:
    await APIFuture.start(client._session.runtime())


# --- opening --------------------------------------------------------------------------------------


def test_nothing_is_opened_before_the_first_use(services: Services) -> None:
    client = services.client()
    client.create_rest_client()
    assert 0 == services.num_openings
    assert "idle" in repr(client)
    client.holder.get_session_id()
    assert (1, ({"team": "rl"}, "local", None)) == (services.num_openings, services.arguments)
    assert "open" in repr(client)


async def test_uses_at_the_same_time_open_once(services: Services) -> None:
    client = services.client()
    await asyncio.gather(*[opened(client) for _ in range(5)])
    assert 1 == services.num_openings


def test_an_opening_that_failed_is_tried_again_at_the_next_use(services: Services) -> None:
    client = services.client()
    services.failures.append(errors.APIConnectionError())
    with pytest.raises(errors.APIConnectionError):
        client.holder.get_session_id()
    client.holder.get_session_id()
    assert 2 == services.num_openings


def test_a_mode_that_is_unknown_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_RAY_MODE", "remote")
    with pytest.raises(errors.ConfigurationError, match="TINKER_RAY_MODE"):
        ServiceClient()


# --- closing --------------------------------------------------------------------------------------


def test_closing_tells_the_service_once(services: Services) -> None:
    client = services.client()
    client.holder.get_session_id()
    client.close("errored", "why").result()
    client.close()
    assert [("aclose", "errored", "why")] == services.runtime.calls
    assert "closed" in repr(client)


def test_closing_what_was_never_opened_opens_nothing(services: Services) -> None:
    client = services.client()
    client.close()
    assert (0, []) == (services.num_openings, services.runtime.calls)


async def test_closing_twice_at_once_waits_for_the_one_closing(services: Services) -> None:
    client = services.client()
    await opened(client)
    await asyncio.gather(client.close_async(), client.close_async("errored"))
    assert [("aclose", "success", None)] == services.runtime.calls


def test_closing_after_an_opening_that_failed_is_fine(services: Services) -> None:
    client = services.client()
    services.failures.append(errors.APIConnectionError())
    with pytest.raises(errors.APIConnectionError):
        client.holder.get_session_id()
    client.close()
    assert [] == services.runtime.calls


@pytest.mark.parametrize("opened", [True, False])
def test_a_closed_client_is_of_no_use(services: Services, opened: bool) -> None:  # noqa: FBT001
    client = services.client()
    if opened:
        client.holder.get_session_id()
    client.close()
    with pytest.raises(errors.StaleHandleError, match="closed"):
        client.holder.get_session_id()


class Interrupt(BaseException):
    """What Ctrl-C raises, without its side effects."""


@pytest.mark.parametrize(
    "raised,expected",
    [
        (None, ("aclose", "success", None)),
        (ValueError("no"), ("aclose", "errored", "ValueError")),
        (Interrupt(), ("aclose", "interrupted", "Interrupt")),
    ],
)
@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_with_block_tells_how_it_ended(
    services: Services,
    raised: BaseException | None,
    expected: tuple[str, str, str | None],
    asynchronous: bool,  # noqa: FBT001
) -> None:
    async def use_async() -> None:
        async with services.client() as client:
            await opened(client)
            if raised is not None:
                raise raised

    def use() -> None:
        with services.client() as client:
            client.holder.get_session_id()
            if raised is not None:
                raise raised

    with contextlib.suppress(ValueError, Interrupt):
        asyncio.run(use_async()) if asynchronous else use()
    assert [expected] == services.runtime.calls


def test_dropping_the_service_client_leaves_the_clients_that_it_made(services: Services) -> None:
    training = services.client().create_lora_training_client("base")
    gc.collect()
    training.optim_step(AdamParams()).result(5)
    assert [OptimStep(1, AdamParams())] == services.runtime.trainings[0].ran
    assert ("aclose", "success", None) not in services.runtime.calls


# --- what it makes --------------------------------------------------------------------------------


def test_models_are_numbered_and_made_as_asked(services: Services) -> None:
    client = services.client()
    first = client.create_lora_training_client("base", 8, 3, train_mlp=False)
    second = client.create_lora_training_client("base", user_metadata={"k": "v"})
    assert ("S1:train:0", "S1:train:1") == (first.model_id, second.model_id)
    assert [
        ("create_model", 0, "base", LoraConfig(rank=8, seed=3, train_mlp=False), None),
        ("open_training", ModelHandle("S1:train:0")),
        ("create_model", 1, "base", LoraConfig(rank=32), {"k": "v"}),
        ("open_training", ModelHandle("S1:train:1")),
    ] == services.runtime.calls


async def test_models_from_states_go_on_with_the_numbers_of_their_creation(
    services: Services,
) -> None:
    client = services.client()
    for training in (
        await client.create_training_client_from_state_async(STATE, {"k": "v"}),
        await client.create_training_client_from_state_with_optimizer_async(STATE),
    ):
        await training.optim_step(AdamParams())
    assert [
        ("create_model_from_state", 0, STATE, False, {"k": "v"}),
        ("create_model_from_state", 1, STATE, True, None),
    ] == [call for call in services.runtime.calls if call[0] == "create_model_from_state"]
    assert [[2], [2]] == [[op.seq for op in port.ran] for port in services.runtime.trainings]


@pytest.mark.parametrize(
    "arguments,complaint",
    [
        ({"rank": 0}, "rank"),
        ({"train_mlp": False, "train_attn": False, "train_unembed": False}, "nothing to train"),
    ],
)
def test_an_adapter_that_cannot_be_is_refused_before_anything_is_sent(
    services: Services, arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        services.client().create_lora_training_client("base", **arguments)
    assert 0 == services.num_openings


def test_samplers_are_numbered_and_made_as_asked(services: Services) -> None:
    client = services.client()
    retry = RetryConfig(max_connections=2)
    first = client.create_sampling_client(base_model="base", retry_config=retry)
    second = client.create_sampling_client("tinker://m/sampler_weights/b")
    assert ("S1:sample:0", "S1:sample:1") == (first.sampling_session_id, second.sampling_session_id)
    assert [
        ("create_sampling_session", 0, "base", None),
        ("create_sampling_session", 1, None, "tinker://m/sampler_weights/b"),
    ] == services.runtime.calls
    assert retry == first.retry_config


@pytest.mark.parametrize(
    "arguments,complaint",
    [({}, "model_path or base_model"), ({"model_path": "/tmp"}, "tinker://")],  # noqa: S108
)
def test_a_sampler_of_nothing_is_refused(
    services: Services, arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        services.client().create_sampling_client(**arguments)
    assert [] == services.runtime.calls
