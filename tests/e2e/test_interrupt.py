from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e import command

RUN = (
    *command.CLI,
    "train",
    *("--seed", "4", "--target-accuracy", "0.9"),
    *("--set", "checkpoint_every=2", "--set", "eval_every=4"),
)
MODES = ("cluster", "local", "cluster", "local", "cluster")
LONGEST_WAIT_S = 14.0


def interrupt_after(seconds: float, mode: str, cwd: Path) -> int:
    """Press Ctrl-C at a moment of a run, as a terminal does: to the whole process group."""
    with command.started(*RUN, "--mode", mode, cwd=cwd) as process:
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
    for mode in MODES:
        seconds = chance.uniform(0.3, LONGEST_WAIT_S)
        code = interrupt_after(seconds, mode, tmp_path)
        output = (tmp_path / "output.txt").read_text()
        story = f"seed {seed}, {mode} mode, interrupted after {seconds:.1f} s:\n{output}"
        assert code == 130, story
        assert "Traceback" not in output, story
        assert command.survivors(tmp_path) == [], story
    command.run(*RUN, "--mode", "local", cwd=tmp_path)
    summary = command.summary(tmp_path)
    assert summary["accuracy_before"] <= 0.55
    assert summary["accuracy_after"] >= 0.88  # an evaluation with other weights reached 0.90
