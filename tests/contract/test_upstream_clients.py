"""The upstream SDK of both generations, and this package in its place, drive the engine.

Each client is a process of its own that runs the same steps (``drive/``) against an engine over a
socket. Engines speak both encodings, JSON only as an old service, or protobuf only as a new one;
our client finds out which by itself. Two clients drive at a time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.drive.plan import NEW, OLD
from tests.fakes.served import Served
from tests.fakes.upstream import upstream_python
from tinker_ray.engine.tiny_adder import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def drive(client: Client, engine: Future[Served], out: Path) -> dict[str, str]:
    """Run a client's steps to their end; return what it says of each."""
    process = subprocess.run(
        [
            str(client.python()),
            "-m",
            "tests.contract.drive",
            engine.result().url,
            "--out",
            str(out),
            *client.options,
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TOKENIZERS_PARALLELISM": "false"},
        cwd=out.parent,
        timeout=170,
        check=False,
        capture_output=True,
        text=True,
    )
    assert out.exists(), process.stderr
    outcomes: dict[str, str] = json.loads(out.read_text())
    return outcomes


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[dict[str, str]]]]:
    """All drives, begun in turn."""
    folder = tmp_path_factory.mktemp("drives")
    with ThreadPoolExecutor(2) as pool:
        engines = {
            wire: pool.submit(Served, "--model", NAME, "--data", str(folder / wire), "--wire", wire)
            for wire in dict.fromkeys(client.wire for client in CLIENTS.values())
        }
        try:
            yield {
                name: pool.submit(drive, client, engines[client.wire], folder / f"{name}.json")
                for name, client in CLIENTS.items()
            }
        finally:
            pool.shutdown(cancel_futures=True)
            for engine in engines.values():
                engine.result().kill()


@pytest.mark.leaks("the processes of the drives that come next")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CLIENTS)
def test_every_step_of_the_drive_passes(
    name: str, drives: dict[str, Future[dict[str, str]]]
) -> None:
    outcomes = drives[name].result()
    assert {} == {step: said for step, said in outcomes.items() if said != "passed"}
    assert len(outcomes) == CLIENTS[name].num_steps
