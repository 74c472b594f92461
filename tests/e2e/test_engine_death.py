"""An embedded engine that is killed: its callers hear of it at once, in either mode."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

import pytest

import tinker_ray
from tinker_ray import AdamParams, EngineError, ModelInput, SamplingParams
from tinker_ray.config import EngineProcess
from tinker_ray.engine import launcher
from tinker_ray.engine.tiny_adder import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROMPT = ModelInput.from_ints([3, 4, 5])


@contextmanager
def service_in(mode: Literal["local", "cluster"]) -> Iterator[tinker_ray.ServiceClient]:
    """A client of an engine of its own, which the test may kill."""
    tinker_ray.init(mode=mode)
    client = tinker_ray.ServiceClient(base_url="embedded")
    try:
        yield client
    finally:
        client.close()
        tinker_ray.shutdown()


@pytest.fixture(autouse=True)
def own_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_RAY_HOME", str(tmp_path))


def kill_engine(service: tinker_ray.ServiceClient) -> None:
    process = service.holder.session.settings.engine
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)


def fails(call: Callable[[], object]) -> str:
    """Make a call that must fail for the engine's end, and return what it says.

    By the service's own rules it would be repeated for minutes, beyond the timeout of the call.
    """
    with pytest.raises(EngineError) as caught:
        call()
    assert "server" == caught.value.category
    return str(caught.value)


def check_calls(service: tinker_ray.ServiceClient) -> None:
    training = service.create_lora_training_client(NAME, rank=4)
    sampler = training.save_weights_and_get_sampling_client()
    long = SamplingParams(max_tokens=40, stop=[])
    sampler.sample(PROMPT, 1, long).result(60)
    under_way = [sampler.sample(PROMPT, 64, long) for _ in range(20)]
    kill_engine(service)
    said = [fails(partial(future.result, 20)) for future in under_way[-3:]]
    assert all("make a new ServiceClient" in text for text in said)
    fails(lambda: sampler.sample(PROMPT, 1, long).result(20))
    fails(lambda: training.optim_step(AdamParams()).result(20))
    fails(lambda: service.create_lora_training_client(NAME, rank=4))
    fails(lambda: service.create_rest_client().list_sessions().result(20))


def test_calls_under_way_and_later_ones_fail_at_once() -> None:
    with service_in("local") as service:
        check_calls(service)


@pytest.mark.usefixtures("ray_cluster")
def test_they_do_on_a_cluster_too() -> None:
    with service_in("cluster") as service:
        check_calls(service)


def test_a_new_client_gets_a_new_engine() -> None:
    tinker_ray.init(mode="local")
    rest = tinker_ray.RestClient(base_url="embedded")
    first = rest.get_server_capabilities().result(60)
    process = rest.holder.session.settings.engine
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    fails(lambda: rest.get_server_capabilities().result(20))
    with pytest.raises(EngineError, match="has ended"):  # so copies that arrive now are told
        launcher.join(process, rest.holder.session.settings.base_url)
    again = tinker_ray.RestClient(base_url="embedded")
    assert first == again.get_server_capabilities().result(60)
    assert rest.holder.session is not again.holder.session
    for client in (rest, again):
        client.holder.session.close("success")
    tinker_ray.shutdown()


def test_an_engine_of_another_machine_cannot_be_joined(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="another machine"):
        launcher.join(EngineProcess(1, tmp_path / "elsewhere"), "http://127.0.0.1:1")
