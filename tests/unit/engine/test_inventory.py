from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tinker_ray.engine.inventory import RecordedEngine, recorded
from tinker_ray.engine.launcher import runs

if TYPE_CHECKING:
    from pathlib import Path


def record(home: Path, name: str, content: str) -> Path:
    folder = home / "embedded" / name
    folder.mkdir(parents=True)
    (folder / "engine.json").write_text(content)
    return folder


def test_engines_are_listed_and_those_whose_process_is_gone_are_marked(tmp_path: Path) -> None:
    state = {"url": "http://127.0.0.1:1", "pid": os.getpid()}
    alive = record(tmp_path, "b", json.dumps(state))
    dead = record(tmp_path, "a", json.dumps(state | {"pid": 2**22 + 1}))
    assert [
        RecordedEngine("a", "http://127.0.0.1:1", 2**22 + 1, runs=False, folder=dead),
        RecordedEngine("b", "http://127.0.0.1:1", os.getpid(), runs=True, folder=alive),
    ] == recorded(tmp_path)


def test_a_state_that_is_half_written_is_left_out(tmp_path: Path) -> None:
    for name, content in (("a", ""), ("b", "{}"), ("c", "[]"), ("d", '{"url": "x", "pid": "y"}')):
        record(tmp_path, name, content)
    assert [] == recorded(tmp_path)


def test_a_home_that_is_not_there_has_no_engines(tmp_path: Path) -> None:
    assert [] == recorded(tmp_path / "none")


def test_a_process_that_only_waits_to_be_noticed_does_not_run() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not runs(process.pid)
    assert not runs(process.pid)
    assert runs(os.getpid())
