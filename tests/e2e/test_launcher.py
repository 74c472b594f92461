"""``base_url="embedded"``: one engine per machine, which ends with its last user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING

import psutil
import pytest

from tests.fakes import engine as fakes
from tinker_ray.engine import launcher
from tinker_ray.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER = """
import sys
from pathlib import Path
from tinker_ray.engine import launcher
engine = launcher.embedded(sys.argv[1], Path(sys.argv[2]))
print(engine.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"tiny={fakes.write_model(tmp_path_factory.mktemp('model'))}"


class User:
    """A process that uses the embedded engine until it is told to end or killed."""

    def __init__(self, model: str, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, model, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.stdout: IO[str] = self.process.stdout

    def url(self) -> str:
        return self.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def engines(home: Path) -> list[psutil.Process]:
    """Every engine process that works under a home, without those that only wait for one."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if "--until-unused" in line and any(str(home) in part for part in line):
            found.append(process)
    waiting = {process.ppid() for process in found if process.is_running()}
    return [process for process in found if process.pid not in waiting]


def answers(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/api/v1/healthz", timeout=30) as response:  # noqa: S310
        told: dict[str, str] = json.load(response)
        return told == {"status": "ok"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    yield home
    gone, alive = psutil.wait_procs(engines(home), timeout=20)
    for process in alive:
        process.kill()
    assert not alive, f"left behind: {alive}, ended: {gone}"


def test_users_share_one_engine_that_ends_with_the_last_however_they_end(
    model: str, home: Path
) -> None:
    first, second = User(model, home), User(model, home)
    url = first.url()
    assert second.url() == url
    assert len(engines(home)) == 1
    first.leave()
    assert answers(url)
    (process,) = engines(home)
    second.kill()
    process.wait(20)


def test_a_start_that_is_interrupted_leaves_nothing(model: str, home: Path) -> None:
    user = User(model, home)
    log = home / "embedded"
    while not list(log.glob("*/engine.log")):
        assert user.process.poll() is None
    user.process.send_signal(signal.SIGINT)
    user.process.communicate(timeout=30)
    psutil.wait_procs(engines(home), timeout=20)
    assert engines(home) == []


def test_a_starter_that_is_killed_leaves_the_way_free(model: str, home: Path) -> None:
    user = User(model, home)
    while not list((home / "embedded").glob("*/engine.log")):
        assert user.process.poll() is None
    user.kill()
    with launcher.embedded(model, home) as engine:
        assert answers(engine.url)
        assert len(engines(home)) == 1


def test_threads_share_one_engine_and_its_data_outlives_it(model: str, home: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        held = list(pool.map(lambda _: launcher.embedded(model, home), range(4)))
    assert len({engine.url for engine in held}) == 1
    (process,) = engines(home)
    for engine in held[:3]:
        engine.close()
        engine.close()
    assert answers(held[3].url)
    held[3].close()
    process.wait(20)
    assert list(home.glob("embedded/*/data/ledger.sqlite"))


def test_an_engine_outlives_what_kills_the_children_of_its_starter(model: str, home: Path) -> None:
    starter = User(model, home)
    url = starter.url()
    other = User(model, home)
    assert other.url() == url
    children = psutil.Process(starter.process.pid).children()
    assert children
    for child in children:
        child.kill()
    starter.kill()
    assert answers(url)
    (process,) = engines(home)
    other.leave()
    process.wait(20)
    assert "nobody uses it" in next(home.glob("embedded/*/engine.log")).read_text()


def test_ctrl_c_does_not_reach_a_shared_engine(model: str, home: Path) -> None:
    with launcher.embedded(model, home) as engine:
        (process,) = engines(home)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        assert answers(engine.url)


def test_an_engine_that_was_killed_is_started_again(model: str, home: Path) -> None:
    with launcher.embedded(model, home) as engine:
        (process,) = engines(home)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
        with launcher.embedded(model, home) as again:
            assert answers(again.url)
            assert again.url != engine.url or engines(home) != [process]


def test_an_engine_that_does_not_start_says_why(home: Path) -> None:
    with pytest.raises(EngineStartError, match="unknown model 'nope'"):
        launcher.embedded("nope", home)
    assert not [t for t in threading.enumerate() if not t.daemon and t.name == "embedded-engine"]


def test_sets_of_models_have_folders_of_their_own(tmp_path: Path) -> None:
    names = [
        launcher._folder_name(specs)
        for specs in (["a"], ["b"], ["a", "b"], ["a=x"], [f"a={tmp_path}"], ["../../a"])
    ]
    assert len(set(names)) == len(names)
    assert not any("/" in name or name.startswith(".") for name in names)
