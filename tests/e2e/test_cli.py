"""The command line as a process, against a real engine process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.served import Served
from tinker_ray import AdamParams, Datum, ModelInput, ServiceClient, TensorData
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
        return training.model_id, paths


def command(engine: Served, *arguments: str, key: str | None = "tml-any") -> tuple[int, str, str]:
    """Run ``tinker-ray ARGUMENTS``; return its exit code and what it wrote."""
    environment = os.environ | {"TINKER_BASE_URL": engine.url}
    if key is not None:
        environment["TINKER_API_KEY"] = key
    done = subprocess.run(
        [sys.executable, "-m", "tinker_ray.cli", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def value(engine: Served, *arguments: str) -> Any:  # noqa: ANN401 - JSON
    code, output, errors = command(engine, "-f", "json", *arguments)
    assert (0, "") == (code, errors)
    return json.loads(output)


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


def test_a_mistake_is_explained_without_a_traceback(engine: Served) -> None:
    code, output, errors = command(engine, "run", "info", "no-such-run")
    assert (1, "") == (code, output)
    assert errors.startswith("Error: not found: ")
    assert "Traceback" not in errors


def test_a_missing_key_is_explained(engine: Served) -> None:
    code, output, errors = command(engine, "run", "list", key=None)
    assert (1, "") == (code, output)
    assert "TINKER_API_KEY" in errors
    assert "Traceback" not in errors
