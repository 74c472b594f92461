"""The command line against a real engine process, as a process where that matters."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from peft import PeftConfig
from safetensors import safe_open
from typer.testing import CliRunner

from tests.fakes.served import Served
from tinker_ray import AdamParams, Datum, ModelInput, ServiceClient, TensorData
from tinker_ray.cli.app import app
from tinker_ray.engine.tiny_adder import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served("--data", str(tmp_path_factory.mktemp("data"))) as served:
        yield served


@pytest.fixture(scope="module")
def trained(engine: Served) -> tuple[str, list[str]]:
    """A run and its checkpoints."""
    tokens = [5, 6, 7, 8]
    inputs = {
        "target_tokens": TensorData(tokens[1:], "int64"),
        "weights": TensorData([1.0] * 3, "float32"),
    }
    datum = Datum(ModelInput.from_ints(tokens[:-1]), inputs)
    with ServiceClient(base_url=engine.url, api_key="tml-any") as service:
        training = service.create_lora_training_client(NAME, rank=4)
        training.forward_backward([datum], "cross_entropy").result()
        training.optim_step(AdamParams(learning_rate=1e-3)).result()
        paths = [training.save_state(f"step-{step}").result().path for step in range(3)]
        paths.append(str(training.save_weights_for_sampler("final").result().path))
        paths.append(training.save_weights_external("exported").result().path)
        return training.model_id, paths


def command(
    engine: Served, *arguments: str, key: str | None = "tml-any", answer: str = "", **more: str
) -> tuple[int, str, str]:
    """Run ``tinker-ray ARGUMENTS``; return its exit code and what it wrote."""
    environment = os.environ | {"TINKER_BASE_URL": engine.url} | more
    if key is not None:
        environment["TINKER_API_KEY"] = key
    done = subprocess.run(
        [sys.executable, "-m", "tinker_ray.cli", *arguments],
        input=answer,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def value(engine: Served, *arguments: str) -> Any:  # noqa: ANN401 - JSON
    """Run a command that succeeds, in this process, which is cheaper; return what it reports."""
    environment = {"TINKER_BASE_URL": engine.url, "TINKER_API_KEY": "tml-any"}
    result = CliRunner().invoke(app, ["-f", "json", *arguments], env=environment)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_what_a_script_made_is_listed_and_shown(
    engine: Served, trained: tuple[str, list[str]]
) -> None:
    run_id, paths = trained
    (run,) = value(engine, "run", "list", "--limit", "0")["runs"]
    assert (run_id, NAME, 4) == (run["training_run_id"], run["base_model"], run["lora_rank"])
    assert run == value(engine, "run", "info", run_id)
    listed = value(engine, "checkpoint", "list", "--run-id", run_id)["checkpoints"]
    assert sorted(paths) == sorted(each["tinker_path"] for each in listed)
    (session,) = [
        each
        for each in value(engine, "session", "list")["sessions"]
        if run_id in value(engine, "session", "info", each)["training_run_ids"]
    ]
    assert run_id.startswith(session)
    assert [NAME] == [each["model_name"] for each in value(engine, "model", "list")["models"]]


def test_a_table_is_written_whole_into_a_pipe(
    engine: Served, trained: tuple[str, list[str]]
) -> None:
    code, output, _errors = command(engine, "checkpoint", "list")
    assert 0 == code
    assert set(trained[1]) <= {line.split()[-1] for line in output.splitlines()}


def test_checkpoints_are_deleted_and_then_not_found(
    engine: Served, trained: tuple[str, list[str]]
) -> None:
    _run_id, (first, *_others) = trained
    assert {"deleted_count": 1, "failed": []} == value(
        engine, "checkpoint", "delete", "--yes", first
    )
    code, output, errors = command(engine, "checkpoint", "info", first)
    assert (1, "") == (code, output)
    assert errors.startswith(f"Error: there is no checkpoint {first}")


def test_a_checkpoint_is_downloaded_and_peft_reads_it(
    engine: Served, trained: tuple[str, list[str]], tmp_path: Path
) -> None:
    run_id, paths = trained
    for path in paths[1:]:  # of training, of a sampler, exported
        shown = value(engine, "checkpoint", "download", path, "-o", str(tmp_path))
        folder = Path(shown["destination"])
        sizes = [file.stat().st_size for file in folder.iterdir()]
        assert shown["file_size_bytes"] == sum(sizes)
        assert 4 == PeftConfig.from_pretrained(str(folder)).r
        with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
            assert weights.keys()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.removeprefix("tinker://").replace("/", "_") for path in paths[1:])
    code, _output, errors = command(engine, "checkpoint", "download", paths[1], "-o", str(tmp_path))
    assert (1, True) == (code, "--force" in errors)
    assert run_id in errors


def test_a_service_without_archives_exports_a_checkpoint_for_the_download(tmp_path: Path) -> None:
    with Served("--data", str(tmp_path / "data"), "--wire", "protobuf") as served:
        with ServiceClient(base_url=served.url, api_key="tml-any") as service:
            training = service.create_lora_training_client(NAME, rank=4)
            saved = training.save_state("a").result().path
        shown = value(served, "checkpoint", "download", saved, "-o", str(tmp_path / "here"))
        assert 4 == PeftConfig.from_pretrained(shown["destination"]).r
        listed = value(served, "checkpoint", "list")["checkpoints"]
        assert [saved] == [each["tinker_path"] for each in listed]  # the export is gone again


def test_a_checkpoint_is_published_and_expires(
    engine: Served, trained: tuple[str, list[str]]
) -> None:
    path = trained[1][2]

    def shown() -> tuple[bool, bool]:
        described = value(engine, "checkpoint", "info", path)
        return described["public"], described["expires_at"] is not None

    value(engine, "checkpoint", "publish", path)
    value(engine, "checkpoint", "set-ttl", path, "--ttl", "3600")
    assert (True, True) == shown()
    value(engine, "checkpoint", "unpublish", path)
    value(engine, "checkpoint", "set-ttl", path, "--remove")
    assert (False, False) == shown()


def test_a_trace_is_exported(
    engine: Served, trained: tuple[str, list[str]], tmp_path: Path
) -> None:
    session = trained[0].partition(":")[0]
    file = tmp_path / "deep" / "trace.json"
    shown = value(engine, "session", "export-trace", session, "-o", str(file))
    assert file.stat().st_size == shown["file_size_bytes"]
    assert json.loads(file.read_text())["traceEvents"]
    shown = value(engine, "session", "export-trace", session, "--url-only")
    assert shown["url"].startswith(engine.url)


def test_usage_and_storage_are_reported(engine: Served, trained: tuple[str, list[str]]) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    span = [(now + timedelta(hours=shift)).isoformat() for shift in (-1, 1)]
    usage = value(engine, "billing", "usage", *span)["data"]
    assert "training" in {row["event_info"]["type"] for row in usage}
    (storage,) = value(engine, "billing", "checkpoint-storage")["data"]
    listed = value(engine, "checkpoint", "list", "--limit", "0")["checkpoints"]
    assert len(listed) == storage["checkpoint_count"]


def test_the_state_of_service_and_credentials_is_told(engine: Served) -> None:
    assert {"credentials_available": True, "accessible": True} == value(engine, "auth", "status")
    status = value(engine, "status")
    assert {"base_url": engine.url, "reachable": True, "models": [NAME]} == status["service"]


def test_a_service_that_is_not_there_is_told_at_once(engine: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nowhere = f"http://127.0.0.1:{server.getsockname()[1]}"
    code, output, errors = command(engine, "auth", "status", "--base-url", nowhere)
    assert (1, True) == (code, "Service accessible" in output)
    assert "the service cannot be reached" in errors


def test_ctrl_c_ends_a_command_that_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment = {
            "TINKER_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
            "TINKER_API_KEY": "tml-any",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tinker_ray.cli", "run", "list"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        connection, _address = server.accept()
        with connection:
            assert connection.recv(1)  # it has asked, and nobody answers
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=30)
    assert (130, "", "") == (process.returncode, output, errors)


def test_a_reader_that_leaves_early_gets_no_traceback(engine: Served) -> None:
    pipeline = f"{sys.executable} -m tinker_ray.cli run list --limit 0 -f json | head -c 1"
    environment = {"TINKER_BASE_URL": engine.url, "TINKER_API_KEY": "tml-any"}
    done = subprocess.run(
        ["bash", "-c", pipeline],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )
    assert ("{", "") == (done.stdout, done.stderr)


def test_a_key_is_stored_used_and_forgotten(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    with Served("--data", str(tmp_path / "data"), "--api-key", "tml-own") as served:
        code, _output, errors = command(
            served, "auth", "login", key=None, answer="tml-other\n", **home
        )
        assert (1, False) == (code, (tmp_path / ".tinker").exists())
        assert "authentication failed" in errors
        assert 0 == command(served, "auth", "login", key=None, answer="tml-own\n", **home)[0]
        stored = tmp_path / ".tinker" / "credentials.json"
        assert 0o600 == stat.S_IMODE(stored.stat().st_mode)
        assert 0 == command(served, "run", "list", key=None, **home)[0]
        code, output, _errors = command(served, "auth", "whoami", key=None, **home)
        assert (0, True) == (code, "Organization" in output)
        assert 0 == command(served, "auth", "logout", key=None, **home)[0]
        assert 1 == command(served, "run", "list", key=None, **home)[0]


def test_a_mistake_is_explained_without_a_traceback(engine: Served) -> None:
    code, output, errors = command(engine, "run", "info", "no-such-run")
    assert (1, "") == (code, output)
    assert errors.startswith("Error: not found: ")
    assert "Traceback" not in errors


def test_a_missing_key_is_explained(engine: Served, tmp_path: Path) -> None:
    code, output, errors = command(engine, "run", "list", key=None, HOME=str(tmp_path))
    assert (1, "") == (code, output)
    assert "TINKER_API_KEY" in errors
    assert "Traceback" not in errors
