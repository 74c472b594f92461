"""The driver of a run is killed at seeded moments; no group is trained on twice, none is missed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from tests.e2e import command
from tinker_ray.rl.record import GroupRecord, Manifest, StepRecord

STEPS, SIZE = 40, 4
DRIVER = """
import asyncio, io, sys
from dataclasses import dataclass
from pathlib import Path
from rich.console import Console
from tests.fakes.environment import CountingGroup
from tests.fakes.trainee import FakeTraining
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.loop import Loop
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.run_directory import open_run

@dataclass
class Numbers:
    def batch(self, step):
        return [CountingGroup([step, group], size=2) for group in range(4)]
    def held_out(self):
        return [CountingGroup([99], size=2)]

async def main(run_dir, max_staleness):
    config = RunConfig(
        steps=40, eval_every=0, checkpoint_every=3, seed=5, max_staleness=max_staleness
    )
    directory = open_run(config, root=run_dir.parent, run_dir=run_dir)
    async with RolloutPool(2, groups_per_worker=2) as pool:
        await Loop(
            config, dataset=Numbers(), training=FakeTraining(directory.manifest.steps_done),
            pool=pool, directory=directory, progress=Progress(Console(file=io.StringIO())),
            decode=str, mode="local",
        ).run()

asyncio.run(main(Path(sys.argv[1]), None if sys.argv[2] == "None" else int(sys.argv[2])))
"""
TRAIN = (
    *("train", "--mode", "local", "--seed", "3", "--steps", str(STEPS), "--rank", "2"),
    *("--set", f"prompts_per_step={SIZE}", "--set", "samples_per_prompt=2"),
    *("--set", "eval_every=0", "--set", "eval_problems=1", "--set", "checkpoint_every=3"),
)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def is_finished(run_dir: Path) -> bool:
    return (run_dir / "summary.json").exists()


def kill_at(run_dir: Path, driver: Sequence[str], groups: int, delay_s: float) -> bool:
    """Kill a driver when so many groups are written down beyond its checkpoint, and a bit later.

    Those that the one before left behind count, so it may hit while things are being started.

    Returns:
        Whether it was killed, and did not come to its end before.
    """
    manifest = run_dir / "manifest.json"
    steps = (
        Manifest.model_validate_json(manifest.read_bytes()).steps_done if run_dir.exists() else 0
    )
    with started(driver, run_dir.parent) as process:
        while process.poll() is None:
            if len(lines(run_dir / "groups.jsonl")) >= steps * SIZE + groups:
                time.sleep(delay_s)
                process.kill()
            time.sleep(0.002)
    return process.returncode == -signal.SIGKILL


def started(driver: Sequence[str], home: Path) -> subprocess.Popen[bytes]:
    env = command.environment(home)
    return subprocess.Popen([sys.executable, *driver], env=env, stdout=subprocess.DEVNULL)


def finish(driver: Sequence[str], home: Path) -> None:
    with started(driver, home) as process:
        assert 0 == process.wait(200)


def check(run_dir: Path, whole: Path, *, story: str) -> None:
    """Compare what a run trained on with an uninterrupted one.

    A group that others overtook is dropped for its age, and another one takes its place; which one
    that is, is chance. Where none was dropped both trained on the same.
    """
    ended = [GroupRecord.model_validate_json(line) for line in lines(run_dir / "groups.jsonl")]
    expected = [GroupRecord.model_validate_json(line) for line in lines(whole / "groups.jsonl")]
    drops = Counter(record.dropped for record in (*ended, *expected) if record.dropped)
    print(f"{story}: {len(ended)} and {len(expected)} groups, dropped: {drops}")  # noqa: T201
    assert set(drops) <= {"stale"}, story
    for records in (ended, expected):
        assert list(range(len(records))) == sorted(record.index for record in records), story
        assert STEPS * SIZE == sum(record.dropped is None for record in records), story
    keys, expected_keys = ({r.index: r.key for r in records} for records in (ended, expected))
    assert keys.items() <= expected_keys.items() or expected_keys.items() <= keys.items(), story
    if not drops:
        assert expected_keys == keys, story
    steps = [StepRecord.model_validate_json(line) for line in lines(run_dir / "metrics.jsonl")]
    assert list(range(1, STEPS + 1)) == [record.step for record in steps], story


def survive(root: Path, driver: Sequence[str], *, kills: int, at_least: int, seed: int) -> None:
    chance = Random(seed)
    whole, cut = root / "whole", root / "cut"
    finish([argument.format(run_dir=whole) for argument in driver], root)
    again = [argument.format(run_dir=cut) for argument in driver]
    hits, longest = 0, min(8, STEPS // kills) * SIZE
    for _ in range(kills):
        if not is_finished(cut):
            hits += kill_at(cut, again, chance.randint(1, longest), chance.uniform(0, 0.02))
    if not is_finished(cut):
        finish(again, root)
    check(cut, whole, story=f"seed {seed}, {hits} kills, {cut}")
    assert hits >= at_least, f"seed {seed}: {hits} kills"


@pytest.mark.parametrize("max_staleness", ["None", "1"])
def test_a_driver_that_is_killed_twice_repeats_and_skips_nothing(
    tmp_path: Path, max_staleness: str
) -> None:
    survive(tmp_path, ["-c", DRIVER, "{run_dir}", max_staleness], kills=2, at_least=1, seed=31)


@pytest.mark.soak
@pytest.mark.parametrize("settings", [(), ("--set", "max_staleness=3")])
def test_a_driver_that_is_killed_ten_times_repeats_and_skips_nothing(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    driver = [*command.CLI, *TRAIN, *settings, "--run-dir", "{run_dir}"]
    driver += ["--runs", str(tmp_path)]
    survive(tmp_path, driver, kills=10, at_least=10, seed=32)
