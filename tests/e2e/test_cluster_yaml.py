"""The cluster file is one that Ray accepts, and says what our design asks of a cluster."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster.yaml"
SECRET = re.compile(
    r"tml-\w{8,}|AKIA\w{16}|(token|key|secret|password)\s*[:=]\s*['\"]?\w{20,}", re.IGNORECASE
)


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(CLUSTER.read_text())
    return content


@pytest.fixture(scope="module")
def prepared(raw: dict[str, Any]) -> dict[str, Any]:
    """What ``ray up`` makes of the file: Ray's own defaults filled in; nothing is contacted."""
    from ray.autoscaler._private.util import prepare_config

    filled: dict[str, Any] = prepare_config(raw)
    return filled


def test_ray_accepts_the_file(prepared: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(prepared)


def test_ray_rejects_the_file_with_a_misspelt_field(raw: dict[str, Any]) -> None:
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(jsonschema.ValidationError, match="max_wrokers"):
        validate_config(prepare_config(raw | {"max_wrokers": 8}))


def test_the_head_takes_no_work_and_a_worker_is_always_there(prepared: dict[str, Any]) -> None:
    head = prepared["available_node_types"][prepared["head_node_type"]]
    workers = [
        node
        for name, node in prepared["available_node_types"].items()
        if name != prepared["head_node_type"]
    ]
    assert 0 == head["resources"]["CPU"]
    assert "--num-cpus=0" in prepared["head_start_ray_commands"][-1]
    assert 1 <= sum(node["min_workers"] for node in workers)
    assert all(node["min_workers"] <= node["max_workers"] for node in workers)


def test_every_node_asks_for_the_token_and_reads_its_own_secrets(prepared: dict[str, Any]) -> None:
    (folder,) = prepared["file_mounts"]
    options = prepared["docker"]["run_options"]
    assert {"-e RAY_AUTH_MODE=token", f"-e RAY_AUTH_TOKEN_PATH={folder}/auth_token"} <= set(options)
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert f". ~/{Path(folder).name}/env" in prepared[commands][-1]


def test_no_secret_is_written_in_the_file() -> None:
    assert [] == SECRET.findall(CLUSTER.read_text())


def test_a_dead_node_is_noticed_within_seconds(prepared: dict[str, Any]) -> None:
    settings = dict(
        re.findall(r"RAY_health_check_(\w+)=(\d+)", prepared["head_start_ray_commands"][-1])
    )
    assert {
        "initial_delay_ms": "1000",
        "period_ms": "1000",
        "timeout_ms": "1000",
        "failure_threshold": "3",
    } == settings


@pytest.mark.parametrize(
    "commands", ["setup_commands", "head_start_ray_commands", "worker_start_ray_commands"]
)
def test_the_commands_are_shell_that_parses(commands: str, prepared: dict[str, Any]) -> None:
    for command in prepared[commands]:
        subprocess.run(["bash", "-n", "-c", command], check=True)
