"""``tinker-ray serve`` as a process: its ready line, ends and refusals, its memory of a kill."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.fakes import engine as fakes
from tests.fakes.engine import MODEL, batch, sample_body
from tests.fakes.served import SERVE, Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def serve(model_folder: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*arguments: str) -> Served:
        model = f"--model={MODEL}={model_folder}"
        served = Served(model, "--data", str(tmp_path / "data"), *arguments)
        started.append(served)
        return served

    yield start
    for served in started:
        served.kill()


def test_it_answers_when_it_says_so_and_ends_on_sigint(serve: Callable[..., Served]) -> None:
    served = serve()
    with urllib.request.urlopen(f"{served.url}/api/v1/healthz") as response:  # noqa: S310
        assert json.load(response) == {"status": "ok"}
    assert served.end(signal.SIGINT, 10) == 0
    assert served.stdout.read() == ""


def test_it_ends_on_sigterm_while_a_request_waits_and_one_is_sampled(
    serve: Callable[..., Served],
) -> None:
    served = serve()
    session = served.post("create_session", {"tags": [], "sdk_version": "0"})["session_id"]
    opened = {"session_id": session, "sampling_session_seq_id": 0, "base_model": MODEL}
    sampler = served.post("create_sampling_session", opened)["sampling_session_id"]
    body = sample_body(sampler, num_samples=256, sampling_params={"max_tokens": 120, "stop": []})
    served.post("asample", body)
    host, _, port = served.url.removeprefix("http://").partition(":")
    content = json.dumps({"request_id": "train-none"}).encode()
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /api/v1/retrieve_future HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}"
        connection.sendall(f"{head}\r\n\r\n".encode())
        assert served.end(signal.SIGTERM, 15) == 0


def test_a_killed_engine_remembers(serve: Callable[..., Served]) -> None:
    served = serve()
    session = served.post("create_session", {"tags": [], "sdk_version": "0"})["session_id"]
    created = {
        "session_id": session,
        "model_seq_id": 0,
        "base_model": MODEL,
        "lora_config": {"rank": 4},
    }
    model_id = served.result(served.post("create_model", created))["model_id"]
    trained = served.post(
        "forward_backward",
        {"forward_backward_input": batch(), "model_id": model_id, "seq_id": 1},
    )
    before = served.result(trained)
    stepped = {"adam_params": {"learning_rate": 0.1}, "model_id": model_id, "seq_id": 2}
    served.result(served.post("optim_step", stepped))
    saved = {"model_id": model_id, "seq_id": 3, "sampling_session_seq_id": 0}
    sampler = served.result(served.post("save_weights_for_sampler", saved))["sampling_session_id"]
    body = sample_body(sampler, prompt_logprobs=True)
    drawn = served.result(served.post("asample", body))
    served.end(signal.SIGKILL)

    again = serve()
    assert again.result(trained) == before
    assert again.result(again.post("asample", body)) == drawn
    with pytest.raises(urllib.error.HTTPError) as caught:
        again.post("optim_step", {**stepped, "seq_id": 4})
    assert caught.value.code == 410
    assert "create_training_client_from_state_with_optimizer" in caught.value.read().decode()
    assert again.end(signal.SIGTERM) == 0


def test_it_asks_for_its_key(serve: Callable[..., Served]) -> None:
    served = serve("--api-key", "secret")
    with pytest.raises(urllib.error.HTTPError) as caught:
        served.post("create_session", {"tags": [], "sdk_version": "0"})
    assert caught.value.code == 401
    caught.value.close()
    headers = {"X-API-Key": "secret"}
    assert served.post("create_session", {"tags": [], "sdk_version": "0"}, **headers)
    assert served.end(signal.SIGTERM) == 0


def test_keys_of_a_file_own_what_they_make(serve: Callable[..., Served], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("anna:tml-a\nbela:tml-b:pears\n")
    served = serve(
        "--api-keys", str(keys), "--api-key", "tml-c", "--flag", "fwdbwd_max_chunk_len=9"
    )
    opened = {"tags": [], "sdk_version": "0"}
    session = served.post("create_session", opened, **{"X-API-Key": "tml-a"})
    beat = {"session_id": session["session_id"]}
    for key, code in (("tml-b", 404), ("tml-c", 404), ("tml-d", 401)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            served.post("session_heartbeat", beat, **{"X-API-Key": key})
        assert (key, code) == (key, caught.value.code)
        caught.value.close()
    assert served.post("session_heartbeat", beat, **{"X-API-Key": "tml-a"})
    config = served.post("client/config", {}, **{"X-API-Key": "tml-a"})
    assert config["fwdbwd_max_chunk_len"] == 9
    assert served.end(signal.SIGTERM) == 0


@contextmanager
def refused(*arguments: str) -> Iterator[Callable[[], str]]:
    """Start a command that cannot work; give what returns its one line on standard error."""
    process = subprocess.Popen(
        [*SERVE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def line() -> str:
        output, errors = process.communicate(timeout=60)
        assert (1, "") == (process.returncode, output), errors
        (only,) = errors.splitlines()
        return only

    try:
        yield line
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_what_cannot_be_served_is_refused_in_one_line(model_folder: Path, tmp_path: Path) -> None:
    model, other = f"--model={MODEL}={model_folder}", ("--data", str(tmp_path / "other"))
    (tmp_path / "keys").write_text("tml-secret\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases: dict[str, tuple[str, ...]] = {
            f"port {port}": (model, *other, "--port", port),
            "unknown model 'nope'": ("--model=nope", *other),
            "no config.json": (f"--model=x={tmp_path}", *other),
            "--api-key": (model, *other, "--host", "0.0.0.0"),  # noqa: S104
            "pjwt_auth_enabled": (model, *other, "--flag", "nope=1"),
            "cannot read the keys": (model, *other, "--api-keys", str(tmp_path / "none")),
            "line 1": (model, *other, "--api-keys", str(tmp_path / "keys")),
        }
        with ExitStack() as stack:
            started = {told: stack.enter_context(refused(*case)) for told, case in cases.items()}
            lines = {told: line() for told, line in started.items()}
    assert [] == [(told, line) for told, line in lines.items() if told not in line]
    assert "tml-secret" not in lines["line 1"]


def test_a_data_folder_in_use_and_a_model_that_cannot_be_loaded_are_refused(
    serve: Callable[..., Served], model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "llama"}')
    broken = (f"--model=x={tmp_path / 'broken'}", "--data", str(tmp_path / "other"), "--port", "0")
    busy = (f"--model={MODEL}={model_folder}", "--data", str(tmp_path / "data"), "--port", "0")
    with refused(*broken) as cannot_load:
        served = serve()
        with refused(*busy) as in_use:
            assert "another engine" in in_use()
        assert "cannot load" in cannot_load()
    assert served.end(signal.SIGTERM) == 0
