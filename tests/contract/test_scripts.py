"""Scripts as users of upstream write them: the same results by the real SDK and by install().

Each script runs unmodified with the wheel of its generation, and with this package in its place,
against one served engine; what they print has to agree. So do upstream's own commands.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fakes.served import Served
from tests.fakes.upstream import VERSIONS, upstream_python
from tests.fakes.upstream_script import INSTALLED, SCRIPTS, assert_alike, started
from tinker_ray.engine.tiny_adder import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GENERATIONS = (
    ("sft_sync", "0.6.3"),
    ("sampling_sync", "0.6.3"),
    ("rest_sync", "0.6.3"),
    ("dpo_custom", "0.6.3"),
    ("dpo_custom", "0.38.0"),
    ("rl_async", "0.38.0"),
    ("rest_async", "0.38.0"),
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served("--data", str(tmp_path_factory.mktemp("data"))) as served:
        yield served


@pytest.mark.timeout(300)  # the first of a release makes its environment
@pytest.mark.parametrize("script, version", GENERATIONS)
def test_a_script_gives_the_same_with_upstream_and_with_us(
    engine: Served, script: str, version: str
) -> None:
    path = str(SCRIPTS / f"{script}.py")
    python = str(upstream_python(version))
    with (
        started(engine.url, python, "-W", "ignore", path) as upstream,
        started(engine.url, sys.executable, "-c", INSTALLED, path) as ours,
    ):
        assert_alike(upstream.result(), ours.result())


def test_every_script_is_run() -> None:
    assert {path.stem for path in SCRIPTS.glob("*.py")} == {script for script, _ in GENERATIONS}


@pytest.mark.timeout(240)
def test_both_upstream_commands_download_the_same_adapter(engine: Served, tmp_path: Path) -> None:
    session = engine.post("create_session", {"tags": [], "sdk_version": "0"})
    model = {
        "session_id": session["session_id"],
        "model_seq_id": 0,
        "base_model": NAME,
        "lora_config": {"rank": 4},
    }
    model_id = engine.result(engine.post("create_model", model))["model_id"]
    saved = engine.result(
        engine.post("save_weights", {"model_id": model_id, "path": "a", "seq_id": 1})
    )
    environment = {**os.environ, "TINKER_BASE_URL": engine.url, "TINKER_API_KEY": "tml-x"}
    targets = {version: tmp_path / version for version in VERSIONS}
    downloads = [
        subprocess.Popen(
            [
                str(upstream_python(version).with_name("tinker")),
                *("checkpoint", "download", saved["path"], "-o", str(target)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for version, target in targets.items()
    ]
    told = [download.communicate(timeout=100)[1] for download in downloads]
    assert [0, 0] == [download.returncode for download in downloads], told
    one, other = (
        {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in target.rglob("*")
            if path.is_file()
        }
        for target in targets.values()
    )
    assert one == other
    assert ["adapter_config.json", "adapter_model.safetensors"] == sorted(one)
