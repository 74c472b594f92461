from __future__ import annotations

import os
import random
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e import command

RUN = (
    *command.CLI,
    "train",
    *("--seed", "4", "--target-accuracy", "0.92"),
    *("--set", "checkpoint_every=2", "--set", "eval_every=4"),
)
STEP_LINE = re.compile(r"^ +\d+/\d+ ", re.MULTILINE)
LOOK_EVERY_S = 0.05
MODES = ("cluster", "local", "cluster", "local", "cluster")


def output(cwd: Path) -> str:
    path = cwd / "output.txt"
    return path.read_text() if path.exists() else ""


def interrupt(cwd: Path, mode: str, *, steps: int, seconds: float) -> int:
    """Press Ctrl-C as a terminal does, to the whole group: after so many steps, and a bit."""
    with command.started(*RUN, "--mode", mode, cwd=cwd) as process:
        while len(STEP_LINE.findall(output(cwd))) < steps:
            try:
                return process.wait(LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                continue
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            return process.wait(60)


@pytest.mark.timeout(500)
def test_ctrl_c_at_random_moments_leaves_nothing_running_and_the_run_reaches_its_target(
    tmp_path: Path,
) -> None:
    seed = random.randrange(1000)
    chance = random.Random(seed)
    for number, mode in enumerate(MODES):
        steps = chance.randint(1, 4) if number % 2 else 0  # 0: while things are being started
        seconds = chance.uniform(0.3, 1.5) if steps else chance.uniform(0.8, 9.0)
        code = interrupt(tmp_path, mode, steps=steps, seconds=seconds)
        moment = f"{mode} mode, interrupted {seconds:.1f} s after {steps} steps"
        story = f"seed {seed}, {moment}:\n{output(tmp_path)}"
        assert code == 130, story
        assert "Traceback" not in story
        assert command.survivors(tmp_path) == [], story
    last = command.run(*RUN, "--mode", "local", cwd=tmp_path)
    assert "going on after step" in last, f"seed {seed}:\n{last}"
    summary = command.summary(tmp_path)
    assert summary["accuracy_before"] <= 0.55
    assert summary["accuracy_after"] >= 0.90, last
