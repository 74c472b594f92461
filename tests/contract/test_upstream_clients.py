"""The upstream SDK of both generations, and this package in its place, drive the engine.

Each client is a process of its own that runs the same steps (``drive/``) against an engine of its
own over a socket. The engine speaks both encodings, JSON only as an old service, or protobuf only
as a new one; our client finds out which by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.drive.plan import NEW, OLD
from tests.fakes.served import Served
from tests.fakes.upstream import upstream_python
from tinker_ray.engine.tiny_adder import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Client:
    """Who drives what.

    Attributes:
        python: Gives the interpreter.
        num_steps: Steps that there are for it, so that none is passed over unseen.
        wire: What the engine speaks.
        options: Of the drive.
    """

    python: Callable[[], Path]
    num_steps: int
    wire: str = "both"
    options: tuple[str, ...] = ()


def _ours() -> Path:
    return Path(sys.executable)


CLIENTS = {
    "upstream 0.6.3": Client(lambda: upstream_python("0.6.3"), 33),
    "upstream 0.38.0": Client(lambda: upstream_python("0.38.0"), 50),
    "ours": Client(_ours, 52, options=("--install",)),
    "ours, JSON only": Client(_ours, 33, "json", ("--install", "--generations", OLD)),
    "ours, protobuf only": Client(_ours, 50, "protobuf", ("--install", "--generations", NEW)),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", CLIENTS)
def test_every_step_of_the_drive_passes(name: str, tmp_path: Path) -> None:
    client = CLIENTS[name]
    out = tmp_path / "outcomes.json"
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "TOKENIZERS_PARALLELISM": "false",
    }
    arguments = ["--model", NAME, "--data", str(tmp_path / "data"), "--wire", client.wire]
    with Served(*arguments) as served:
        process = subprocess.run(
            [
                str(client.python()),
                "-m",
                "tests.contract.drive",
                served.url,
                "--out",
                str(out),
                *client.options,
            ],
            env=environment,
            cwd=tmp_path,
            timeout=170,
            check=False,
            capture_output=True,
            text=True,
        )
    assert out.exists(), process.stderr
    outcomes: dict[str, str] = json.loads(out.read_text())
    assert {} == {step: said for step, said in outcomes.items() if said != "passed"}
    assert len(outcomes) == client.num_steps
