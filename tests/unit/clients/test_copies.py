from __future__ import annotations

import base64
import copy
import gc
import json
import pickle
import threading
from typing import Any

import pytest

from tests.fakes.ports import FakeRuntime, FakeTrainingPort
from tinker_ray.clients import copies
from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.clients.service import ServiceClient
from tinker_ray.clients.session import ClientSession
from tinker_ray.clients.training import TrainingClient
from tinker_ray.config import Secret, Settings
from tinker_ray.core.flags import DynamicFlags, ServerFlags
from tinker_ray.core.operation import OptimStep
from tinker_ray.core.session import ModelHandle
from tinker_ray.errors import ConfigurationError
from tinker_ray.types import AdamParams, RetryConfig

KEY = "tml-hidden"
CLUSTER = {"address": "1.2.3.4:6379", "namespace": "n", "samplers": ["S1/sampler-0"]}
FLAGS = ServerFlags(
    max_samples=7,
    sample_join_sampling_session=True,
    dynamic=DynamicFlags(30, sample_cancel_enabled=True),
)
HEADERS = {"X-Route": "canary", "Authorization": f"Bearer {KEY}", "X-Some-Token": KEY}


class SharedPort(FakeTrainingPort):
    """A port that hands its order over."""

    handed_over: int | None = None

    def hand_over(self, number: int) -> str:
        self.handed_over = number
        return "S1/training-0"


class Owner:
    """Clients of a session that is open in this process."""

    def __init__(self, cluster: dict[str, Any] | None = None, session_id: str = "S1") -> None:
        self.runtime = FakeRuntime(session_id=session_id, flags=FLAGS, cluster=cluster)
        settings = Settings(
            api_key=Secret(KEY),
            base_url="http://service",
            mode="local" if cluster is None else "cluster",
            default_headers=HEADERS,
            timeout_s=7.0,
            cloudflare=("id", Secret(KEY)),
        )
        self.session = ClientSession(settings, {"team": "rl"}, opener=self._open)
        Bridge.get().submit(self.session.runtime()).result(5)
        retry = RetryConfig(max_connections=3)
        self.sampler = SamplingClient(
            self.session, "S1:sample:0", retry, base_model="base", record_stability_info=True
        )
        self.port = SharedPort() if cluster is not None else FakeTrainingPort()
        self.trainer = TrainingClient(self.session, self.port, ModelHandle("S1:train:0"), FLAGS)
        self.service = ServiceClient.over(self.session)

    async def _open(self, *_: object) -> FakeRuntime:
        return self.runtime

    def forget(self) -> None:
        """Let a pickle arrive as it does in another process."""
        copies._SESSIONS.clear()


def arrived(client: Any) -> Any:  # noqa: ANN401
    """Return what another process makes of a client."""
    pickled = pickle.dumps(client)
    copies._SESSIONS.clear()
    return pickle.loads(pickled)  # noqa: S301 - our own bytes


@pytest.fixture(autouse=True)
def own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-of-this-process")


def test_no_client_takes_a_key_or_a_secret_header_along() -> None:
    owner = Owner(CLUSTER)
    clients = (owner.sampler, owner.trainer, owner.service, owner.service.create_rest_client())
    for client in clients:
        assert KEY.encode() not in pickle.dumps(client)
    assert KEY not in base64.urlsafe_b64decode(owner.sampler.get_sampler_handle()).decode()


def test_an_origin_is_json() -> None:
    origin = copies.origin_of(Owner(CLUSTER).session)
    assert origin == json.loads(json.dumps(origin))
    assert ({"X-Route": "canary"}, 7.0) == (origin["headers"], origin["timeout_s"])


def test_a_sampling_client_arrives_as_it_was_with_credentials_of_the_new_process() -> None:
    sampler = arrived(Owner().sampler)
    assert isinstance(sampler, SamplingClient)
    assert ("S1:sample:0", 3, True, "base") == (
        sampler.sampling_session_id,
        sampler.retry_config.max_connections if sampler.retry_config else None,
        sampler.record_stability_info,
        sampler.get_base_model(),
    )
    settings = sampler._session.settings
    assert ("http://service", "tml-of-this-process", {"X-Route": "canary"}) == (
        settings.base_url,
        settings.required_key().reveal(),
        settings.default_headers,
    )


def test_copies_of_one_session_share_it_in_a_process() -> None:
    owner = Owner(CLUSTER)
    pickled = [pickle.dumps(client) for client in (owner.sampler, owner.sampler, owner.trainer)]
    owner.forget()
    first, second, trainer = (pickle.loads(item) for item in pickled)  # noqa: S301
    assert first._session is second._session is trainer._session
    assert owner.session is not first._session


def test_a_session_that_no_copy_uses_any_more_is_left() -> None:
    left = threading.Event()

    class Runtime(FakeRuntime):
        async def aclose(self, reason: str, detail: str | None) -> None:
            await super().aclose(reason, detail)
            left.set()

    async def opener(*_: object) -> FakeRuntime:
        return Runtime()

    session = ClientSession(Settings(mode="local"), opener=opener, origin={"session_id": "S1"})
    Bridge.get().submit(session.runtime()).result(5)
    del session
    gc.collect()
    assert left.wait(5)


def test_a_copy_in_the_owners_process_is_of_the_owners_session() -> None:
    owner = Owner()
    assert owner.session is copy.deepcopy(owner.sampler)._session


def test_a_copy_can_be_copied_again() -> None:
    once = arrived(Owner(CLUSTER).trainer)
    twice = arrived(once)
    assert (once.model_id, "S1/training-0") == (twice.model_id, twice._operations.port._actor)
    assert copies.origin_of(once._session) == copies.origin_of(twice._session)


def test_the_flags_of_the_service_arrive() -> None:
    trainer = arrived(Owner(CLUSTER).trainer)
    assert FLAGS == copies._flags_of(copies.origin_of(trainer._session)["flags"])
    assert FLAGS.chunks == trainer._operations.limits


def test_a_training_client_hands_its_order_over_when_it_is_pickled() -> None:
    owner = Owner(CLUSTER)
    owner.trainer.optim_step(AdamParams()).result(5)
    pickle.dumps(owner.trainer)
    assert 2 == getattr(owner.port, "handed_over", None)
    assert ("reference", True) in owner.runtime.calls


def test_a_sampling_client_leaves_the_numbers_where_they_are() -> None:
    owner = Owner(CLUSTER)
    pickle.dumps(owner.sampler)
    assert [("reference", False)] == owner.runtime.calls


def test_a_training_client_in_local_mode_is_refused_when_it_is_pickled() -> None:
    with pytest.raises(ConfigurationError, match="Ray cluster"):
        pickle.dumps(Owner().trainer)


def test_a_copied_training_client_says_what_it_needs() -> None:
    trainer = arrived(Owner(CLUSTER).trainer)  # this process is not connected to Ray
    with pytest.raises(ConfigurationError, match="not connected to its Ray cluster"):
        trainer.optim_step(AdamParams()).result(5)
    trainer._session.close("success")


def test_the_operations_of_a_copy_go_through_one_port() -> None:
    attached: list[tuple[ModelHandle, str]] = []

    class Runtime(FakeRuntime):
        def attach_training(self, model: ModelHandle, actor: str) -> FakeTrainingPort:
            attached.append((model, actor))
            return port

    port, runtime = FakeTrainingPort(), Runtime()

    async def opener(*_: object) -> FakeRuntime:
        return runtime

    session = ClientSession(Settings(mode="cluster"), opener=opener)
    model = ModelHandle("S1:train:0")
    shared = copies.SharedTraining(session, model, "S1/training-0")
    trainer = TrainingClient(session, shared, model, FLAGS)
    for future in [trainer.optim_step(AdamParams()) for _ in range(5)]:
        future.result(5)
    assert [(model, "S1/training-0")] == attached
    assert [OptimStep(seq, AdamParams()) for seq in range(1, 6)] == port.ran


def test_a_service_client_shares_its_session_on_a_cluster_only() -> None:
    shared = arrived(Owner(CLUSTER).service)
    assert ("S1", {"X-Route": "canary"}) == (
        shared._session.origin["session_id"],
        shared._session.settings.default_headers,
    )
    own = arrived(Owner().service)
    assert (None, {"team": "rl"}) == (own._session.origin, own._session.user_metadata)


# --- handles --------------------------------------------------------------------------------------


def test_a_handle_makes_a_client_of_the_same_sampling_session() -> None:
    owner = Owner(CLUSTER)
    handle = owner.sampler.get_sampler_handle()
    owner.forget()
    sampler = SamplingClient.from_sampler_handle(handle, api_key="tml-given")
    assert ("S1:sample:0", "base", True) == (
        sampler.sampling_session_id,
        sampler.get_base_model(),
        sampler.record_stability_info,
    )
    session = sampler._session
    assert "tml-given" == session.settings.required_key().reveal()
    expected = copies.origin_of(owner.session)
    assert expected == copies.origin_of(session)


def test_a_handle_of_the_upstream_sdk_is_understood() -> None:
    fields = {
        "session_id": "S9",
        "sampling_session_id": "S9:sample:1",
        "holder": {
            "base_url": "http://other",
            "default_headers_overrides": {},
            "client_config": {"sample_max_concurrent_requests": 11},
            "client_dynamic_config": {},
            "api_key": None,
        },
        "base_model": "base",
        "record_stability_info": False,
    }
    handle = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()
    sampler = SamplingClient.from_sampler_handle(handle)
    assert ("S9:sample:1", "http://other") == (
        sampler.sampling_session_id,
        sampler._session.settings.base_url,
    )
    flags = copies._flags_of(copies.origin_of(sampler._session)["flags"])
    assert (11, True) == (flags.max_samples, flags.protobuf)


@pytest.mark.parametrize("text", ["", "nonsense", base64.urlsafe_b64encode(b"[1]").decode()])
def test_what_is_no_handle_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no sampler handle"):
        SamplingClient.from_sampler_handle(text)
