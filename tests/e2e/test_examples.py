from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import command
from tinker_ray.engine import launcher
from tinker_ray.environments import sums
from tinker_ray.rl import load
from tinker_ray.rl.train import find_dataset

EXAMPLES = command.REPOSITORY / "examples"


@pytest.fixture(scope="module")
def engine_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Hold one engine for all examples, which find it instead of starting theirs."""
    home = tmp_path_factory.mktemp("home")
    with launcher.embedded("tinker-ray/tiny-adder", home):
        yield home


@pytest.mark.parametrize(
    "name,arguments,mode,words",
    [
        ("01_sample.py", (), "local", "12+34="),
        ("02_train_sft.py", ("3",), "local", "loss per answer token"),
        ("03_rl.py", ("2",), "local", "reward"),
        ("03_rl.py", ("2",), "cluster", "reward"),
        ("04_custom_environment.py", ("2",), "local", "turns"),
        ("05_custom_loss.py", ("2",), "local", "preferred"),
        ("06_drop_in.py", (), "local", "which is tinker_ray"),
        ("07_tool_environment.py", ("1",), "local", "turns"),
        ("08_rollout_pool.py", ("11",), "local", "= delivered 10 + dropped {'environment': 1}"),
        ("09_evaluation.py", ("4",), "local", "held out, greedy"),
        ("10_executor.py", ("3",), "cluster", "MemoryError"),
        ("11_async_rl.py", ("3",), "local", "groups by age {0: "),
    ],
)
def test_an_example_runs_and_says_something(
    tmp_path: Path,
    engine_home: Path,
    name: str,
    arguments: tuple[str, ...],
    mode: str,
    words: str,
) -> None:
    output = command.run(
        str(EXAMPLES / name),
        *arguments,
        cwd=tmp_path,
        TINKER_RAY_MODE=mode,
        TINKER_RAY_HOME=str(engine_home),
    )
    assert words in output
    assert command.survivors(tmp_path) == []


def test_every_file_of_settings_names_an_environment_that_is_there() -> None:
    found = {path.name: find_dataset(load(path).environment) for path in EXAMPLES.glob("*.toml")}
    assert {"conversation.toml": sums.conversation, "sums.toml": sums.dataset} == found


def test_every_example_is_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert {} == {name: length for name, length in lengths.items() if length >= 80}


def test_every_example_is_run() -> None:
    run = {
        "01_sample.py",
        "02_train_sft.py",
        "03_rl.py",
        "04_custom_environment.py",
        "05_custom_loss.py",
        "06_drop_in.py",
        "07_tool_environment.py",
        "08_rollout_pool.py",
        "09_evaluation.py",
        "10_executor.py",
        "11_async_rl.py",
    }
    assert {path.name for path in EXAMPLES.glob("*.py")} == run
