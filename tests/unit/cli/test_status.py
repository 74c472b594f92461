from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from actors.sampler import SamplerState
from tests.fakes.rest import FakeClients, FakeRest
from tests.unit.cli.runner import run
from tinker_ray.cli.status import describe_sampler, describe_session
from tinker_ray.config import EMBEDDED_API_KEY
from tinker_ray.errors import APIConnectionError, ConfigurationError
from tinker_ray.types import SupportedModel

if TYPE_CHECKING:
    from pathlib import Path

SERVICE = ("--base-url", "http://service")
MODELS = [SupportedModel(model_name="tiny"), SupportedModel(model_name="big")]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TINKER_RAY_HOME", str(tmp_path))
    monkeypatch.setenv("TINKER_API_KEY", "tml-own")
    return tmp_path


def record(home: Path, name: str, pid: int) -> None:
    folder = home / "embedded" / name
    folder.mkdir(parents=True)
    state = {"url": f"http://127.0.0.1/{name}", "pid": pid}
    (folder / "engine.json").write_text(json.dumps(state))


def test_a_service_that_answers_is_shown_with_its_models() -> None:
    outcome = run(*SERVICE, "status", rest=FakeRest(models=MODELS))
    assert 0 == outcome.code
    assert [
        "What Where State",
        "Service http://service answers, 2 models",
        "Ray - not asked: set RAY_ADDRESS or give --ray",
    ] == outcome.lines


@pytest.mark.parametrize(
    "error", [APIConnectionError("connection refused"), ConfigurationError("connection refused")]
)
def test_a_service_that_does_not_answer_makes_the_command_fail(error: Exception) -> None:
    rest = FakeRest(failing={"get_server_capabilities": error})
    outcome = run(*SERVICE, "status", "-f", "json", rest=rest)
    assert 1 == outcome.code
    assert {
        "base_url": "http://service",
        "reachable": False,
        "error": "connection refused",
    } == outcome.value["service"]


def test_an_embedded_engine_is_not_started_to_look_at_it() -> None:
    rest = FakeRest()
    outcome = run("--base-url", "embedded", "status", "-f", "json", rest=rest)
    assert (0, []) == (outcome.code, rest.calls)
    assert {"base_url": "embedded", "reachable": None} == outcome.value["service"]


def test_engines_of_this_machine_are_asked_without_the_users_key(home: Path) -> None:
    record(home, "alive", os.getpid())
    record(home, "dead", 2**22 + 1)
    clients = FakeClients(FakeRest(models=MODELS))
    engines = run(*SERVICE, "status", "-f", "json", clients=clients).value["engines"]
    assert [("alive", True), ("dead", False)] == [
        (engine["name"], engine["reachable"]) for engine in engines
    ]
    assert ["tiny", "big"] == engines[0]["models"]
    assert "its process is gone" == engines[1]["error"]
    assert [("http://service", None), ("http://127.0.0.1/alive", EMBEDDED_API_KEY)] == clients.asked


def test_a_session_on_ray_is_worded() -> None:
    session: dict[str, Any] = {
        "error": None,
        "heartbeat": True,
        "permits_in_use": 3,
        "permits_limit": 400,
        "trainings": ["s:train:0"],
        "holders": [{}, {}],
        "pause_s": 1.25,
    }
    assert (
        "alive, 2 permit holders, 3/400 permits in use, 1 model in training, paused for 1.2 s"
    ) == describe_session(session)
    session["budget"] = {
        "tokens_spent": 1200,
        "tokens_limit": 5000,
        "cost_spent": 0.5,
        "cost_limit": None,
    }
    assert describe_session(session).endswith("paused for 1.2 s, 1200/5000 tokens spent")
    session["budget"] |= {"tokens_limit": None, "cost_limit": 2.0}
    assert describe_session(session).endswith("paused for 1.2 s, 0.50/2.00 of its money spent")
    assert "its actor is lost" == describe_session({"error": "its actor is lost"})


def test_samplers_are_described_by_what_they_have() -> None:
    state = SamplerState("abcdef0123456789", load=12, waiting=4, drawn=100)
    shown = asdict(state) | {"answers": True}
    assert "4 waiting, 8 in flight, 100 drawn" == describe_sampler(shown)
    busy = {"conversations": 2, "resubmitted": 3, "hedged": 1, "is_ending": True}
    assert (
        "4 waiting, 8 in flight, 100 drawn, 2 conversations, 3 resubmitted, 1 hedged, draining"
        == describe_sampler(shown | busy)
    )
    assert "starting or lost" == describe_sampler({"answers": False})
