"""Malformed requests, made from the engine's own description of itself and from valid ones.

Every endpoint refuses them with a 4xx that names what is wrong, at once, with nothing changed. The
seed makes a run reproducible; ``make fuzz`` runs many more.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import sqlite3
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import schemathesis
import zstandard
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.fakes.engine import MODEL, batch, sample_body
from tests.fakes.running_engine import Running, save
from tinker_ray.engine.settings import HostSettings
from tinker_ray.types import Datum, ModelInput, TensorData
from tinker_ray.wire import codec
from tinker_ray.wire.request import ForwardBackwardRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fakes.engine import EngineClient
    from tinker_ray.engine.model.base_model import BaseModel

pytestmark = pytest.mark.leaks("the threads of an engine whose loop is not the test's")

# Drawing thousands of requests is what this module is for; hypothesis looks at its own speed.
FUZZ = settings(
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
SHORT, LONG = 250, 2000
UNCHANGED = ("activity", "usage", "sqlite_sequence")
"""Tables that are written a moment later than what they count."""


@dataclass
class Target:
    """An engine with something of everything in it."""

    runner: asyncio.Runner
    running: Running
    client: EngineClient
    real: dict[str, str]
    description: dict[str, Any]

    def send(self, **request: Any) -> httpx.Response:  # noqa: ANN401
        """Send a request, which has to be answered in seconds."""
        work = asyncio.wait_for(self.client.http.request(**request), 10)
        return self.runner.run(work)

    def result(self, promise: dict[str, Any]) -> dict[str, Any]:
        """Wait for what a promise comes to, which takes seconds."""
        return self.runner.run(asyncio.wait_for(self.client.result(promise), 10))

    def state(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that the engine has written down."""
        connection = sqlite3.connect(self.running.data / "ledger.sqlite")
        names = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        rows = {
            name: connection.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608
            for name in names
            if name not in UNCHANGED
        }
        connection.close()
        return rows


async def _start(running: Running) -> tuple[EngineClient, dict[str, str], dict[str, Any]]:
    client = await running.start()
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "a")
    sampler_id = await client.sampler()
    promise = await client.post("asample", sample_body(sampler_id))
    await client.result(promise)
    real = {
        "session_id": client.session_id,
        "run_id": model_id,
        "model_id": model_id,
        "sampler_id": sampler_id,
        "sampling_session_id": sampler_id,
        "segment": "weights",
        "name": "a",
        "tinker_path": path,
        "source_path": path,
        "model_path": path,
        "base_model": MODEL,
        "request_id": promise["request_id"],
    }
    return client, real, await client.get("openapi.json")


@pytest.fixture
def target(base: BaseModel, tmp_path: Path) -> Iterator[Target]:
    with asyncio.Runner() as runner:
        running = Running(
            base, tmp_path / "data", HostSettings(gap_timeout_s=0.2, long_poll_s=0.05)
        )
        client, real, description = runner.run(_start(running))
        yield Target(runner, running, client, real, description)
        runner.run(running.stop())


def is_refused(target: Target, response: httpx.Response, told: str) -> None:
    """A refusal is a 4xx in JSON with words, and with the name of what is wrong."""
    assert 400 <= response.status_code < 500, (told, response.status_code, response.text)
    assert response.headers["content-type"] == codec.JSON, told
    body = response.json()
    assert body["detail"], told
    if response.status_code in {400, 422}:
        assert body["field"], (told, body)


# --------------------------------------------------------------------- from the description


def strategies(target: Target, mode: GenerationMode) -> st.SearchStrategy[Any]:
    schema = schemathesis.openapi.from_dict(target.description)
    operations: list[Any] = [cast("Any", result).ok() for result in schema.get_all_operations()]
    assert len(operations) >= 45
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = [operation.as_strategy(generation_mode=mode) for operation in operations]
    return st.one_of(made)


def with_real_names(case: Any, target: Target) -> Any:  # noqa: ANN401 - a case of schemathesis
    """Put names of things that are there where the case has some valid name."""
    for values in (case.path_parameters, case.body):
        if isinstance(values, dict):
            for key, name in target.real.items():
                given_value = values.get(key)
                if isinstance(given_value, str) and 0 < len(given_value) <= 512:
                    values[key] = name
    return case


def as_request(case: Any) -> dict[str, Any]:  # noqa: ANN401 - a case of schemathesis
    made: dict[str, Any] = case.as_transport_kwargs(base_url="http://engine")
    headers = {
        name: value.encode("utf-8", "replace") if isinstance(value, str) else value
        for name, value in made["headers"].items()
    }
    content = made.get("data")
    if "json" in made:
        content = json.dumps(made["json"])
    return {
        "method": made["method"],
        "url": made["url"],
        "params": made.get("params"),
        "headers": headers,
        "content": content,
    }


def says_anything(case: Any) -> bool:  # noqa: ANN401 - a case of schemathesis
    """Whether a query has what cannot be wrong: a parameter that is any text, or is not read."""
    declared = {parameter.name for parameter in case.operation.query}
    return bool({*(case.query or {})} - declared | {*(case.query or {})} & {"project_id"})


def check_description(target: Target, mode: GenerationMode, number: int, num_requests: int) -> None:
    @seed(number)
    @settings(FUZZ, max_examples=num_requests)
    @given(case=strategies(target, mode), real=st.booleans())
    def check(case: Any, real: bool) -> None:  # noqa: ANN401, FBT001
        if real:
            case = with_real_names(case, target)
        before = target.state()
        response = target.send(**as_request(case))
        told = f"seed {number}: {case.method} {case.formatted_path} {case.query} {case.body!r}"
        if mode is GenerationMode.NEGATIVE and not says_anything(case):
            is_refused(target, response, told)
            assert before == target.state(), told
        else:
            assert response.status_code < 500, (told, response.text)
            documented = {*case.operation.responses.status_codes, "404", "405"}
            assert str(response.status_code) in documented, (told, response.text)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cast("Callable[[], None]", check)()


@pytest.mark.timeout(300)
def test_what_breaks_the_description_is_refused_and_changes_nothing(target: Target) -> None:
    check_description(target, GenerationMode.NEGATIVE, 1, SHORT)


@pytest.mark.timeout(300)
def test_what_fits_the_description_is_answered_as_described(target: Target) -> None:
    check_description(target, GenerationMode.POSITIVE, 2, SHORT)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", [GenerationMode.NEGATIVE, GenerationMode.POSITIVE])
def test_thousands_of_requests_are_answered(target: Target, mode: GenerationMode) -> None:
    check_description(target, mode, random.randrange(10**6), LONG)


# --------------------------------------------------------------------- from valid requests

GARBAGE: list[Any] = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    0.5,
    -1e308,
    "",
    "x" * 600,
    "\x00",
    "../../etc/passwd",
    "tinker://a/b/c",
    "😀",
    [],
    [[]],
    {},
    {"type": "other"},
    [None],
    ["a", 1, None],
]


def valid_requests(target: Target) -> list[tuple[str, dict[str, Any]]]:
    real = target.real
    model, session, sampler = real["model_id"], real["session_id"], real["sampler_id"]
    path = real["tinker_path"]
    lora = {"rank": 4, "seed": 1, "train_mlp": True, "train_attn": True, "train_unembed": True}
    adam = {"learning_rate": 1e-4, "beta1": 0.9, "beta2": 0.95, "eps": 1e-12}
    params = {"max_tokens": 4, "temperature": 1.0, "top_p": 1.0, "top_k": -1, "stop": [3]}
    return [
        ("forward_backward", {"forward_backward_input": batch(), "model_id": model}),
        ("forward", {"forward_input": batch(), "model_id": model}),
        ("asample", sample_body(sampler, 5, sampling_params=params, topk_prompt_logprobs=1)),
        ("optim_step", {"model_id": model, "adam_params": adam}),
        (
            "create_model",
            {
                "session_id": session,
                "model_seq_id": 3,
                "base_model": MODEL,
                "lora_config": lora,
                "user_metadata": {"k": 1},
            },
        ),
        ("save_weights", {"model_id": model, "path": "b", "ttl_seconds": 3600}),
        ("save_weights_for_sampler", {"model_id": model, "path": "b"}),
        ("save_weights_external", {"model_id": model, "path": "b"}),
        ("load_weights", {"model_id": model, "path": path, "optimizer": True}),
        (
            "load_weights",
            {"session_id": session, "model_seq_id": 4, "path": path, "optimizer": False},
        ),
        ("copy_weights", {"source_path": path, "destination_project_id": "p"}),
        ("create_session", {"tags": ["a"], "user_metadata": {"a": 1}, "sdk_version": "0"}),
        (
            "create_sampling_session",
            {"session_id": session, "sampling_session_seq_id": 5, "base_model": MODEL},
        ),
        ("retrieve_future", {"request_id": real["request_id"]}),
        (
            "retrieve_futures",
            {"target": {"sampling_session_id": sampler}, "prev_cursor": 0, "timeout": 0},
        ),
        ("sessions/search", {"limit": 3, "owner": {"type": "own"}, "display_name": "x"}),
        ("telemetry", {"events": [{"event": "SESSION_START"}], "session_id": session}),
    ]


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Go through every place in a JSON value."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value[:3])
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutated(body: dict[str, Any], chance: random.Random) -> tuple[dict[str, Any], str]:
    """Change a place or two of a body; say which."""
    changed: Any = copy.deepcopy(body)
    told = []
    for _ in range(chance.choice((1, 1, 2))):
        choice = chance.choice(list(places(changed)) or [()])
        if not choice:
            break
        where = changed
        for key in choice[:-1]:
            where = where[key]
        if isinstance(where, dict) and chance.random() < 0.2:
            del where[choice[-1]]
        else:
            where[choice[-1]] = copy.deepcopy(chance.choice(GARBAGE))
        told.append(choice)
    return changed, str(told)


def check_mutations(target: Target, number: int, num_requests: int) -> None:
    chance = random.Random(number)
    for _ in range(num_requests):
        path, body = chance.choice(valid_requests(target))
        changed, told = mutated(body, chance)
        before = target.state()
        response = target.send(
            method="POST",
            url=f"/api/v1/{path}",
            content=json.dumps(changed).encode(),
            headers={"Content-Type": codec.JSON},
        )
        told = f"seed {number}: {path} {told} {json.dumps(changed)[:500]}"
        if response.status_code >= 400:
            if response.status_code not in {408, 410, 429}:
                is_refused(target, response, told)
            assert before == target.state(), told
        else:
            assert response.status_code == 200, (told, response.text)
            if "request_id" in response.json():
                target.result(response.json())


@pytest.mark.timeout(300)
def test_valid_requests_with_garbage_in_them_are_refused_or_harmless(target: Target) -> None:
    check_mutations(target, 3, SHORT)


# --------------------------------------------------------------------- bytes


def valid_bytes(target: Target) -> bytes:
    inputs = {
        "target_tokens": TensorData([4, 5, 6], "int64", [3]),
        "weights": TensorData([1.0, 0.5, 0.0], "float32", [3]),
    }
    data = [Datum(ModelInput.from_ints([3, 4, 5]), inputs) for _ in range(2)]
    request = ForwardBackwardRequest(target.real["model_id"], data, "cross_entropy")
    return codec.encode_forward_backward(request, proto=True).content


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Cut, flip, insert or double some bytes."""
    made = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        where = chance.randrange(len(made) + 1)
        match chance.randrange(4):
            case 0:
                made = made[:where]
            case 1 if where < len(made):
                made[where] ^= 1 << chance.randrange(8)
            case 2:
                made[where:where] = chance.randbytes(chance.randint(1, 5))
            case _:
                made += made[where : where + 20]
    return bytes(made)


def check_bytes(target: Target, number: int, num_requests: int) -> None:
    chance = random.Random(number)
    for _ in range(num_requests):
        content = damaged(valid_bytes(target), chance)
        headers = {"Content-Type": codec.PROTOBUF}
        if chance.random() < 0.3:
            headers["Content-Encoding"] = chance.choice(("zstd", "gzip", "identity", "x"))
            if chance.random() < 0.5:
                content = damaged(zstandard.compress(content), chance)
        before = target.state()
        response = target.send(
            method="POST", url="/api/v1/forward_backward", content=content, headers=headers
        )
        told = f"seed {number}: {headers} {content.hex()}"
        if response.status_code == 200:
            result = target.result(response.json())
            assert "metrics" in result or "error" in result, told
        else:
            assert 400 <= response.status_code < 500, (told, response.text)
            assert response.json()["detail"], told
            assert before == target.state(), told


@pytest.mark.timeout(300)
def test_damaged_protobuf_is_refused_or_computed(target: Target) -> None:
    check_bytes(target, 4, SHORT)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_thousands_of_damaged_requests_are_answered(target: Target) -> None:
    number = random.randrange(10**6)
    check_mutations(target, number, LONG)
    check_bytes(target, number, LONG)
