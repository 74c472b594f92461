"""Programs that are ended by the clock or by the processor time that they used."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil

from tinker_ray.environments.code_runner import CodeLimits, run_python

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = CodeLimits(wall_s=60, cpu_s=5)
MARK = "tinker-ray-code-limits-sleeper"


def test_a_program_that_takes_too_long_is_killed_with_what_it_started() -> None:
    program = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '{MARK}'])\n"
        "print('began', flush=True)\n"
        "time.sleep(60)"
    )
    outcome = run_python(program, limits=replace(LIMITS, wall_s=2.0))
    assert (True, "it took too long", "began\n") == (
        outcome.timed_out,
        outcome.problem,
        outcome.stdout,
    )
    _, alive = psutil.wait_procs(list(marked()), timeout=5)
    assert [] == alive


def marked() -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["cmdline", "status"]):
        is_dead = process.info["status"] == psutil.STATUS_ZOMBIE
        if MARK in (process.info["cmdline"] or []) and not is_dead:
            yield process


def test_a_program_that_computes_too_long_is_killed() -> None:
    outcome = run_python("while True: pass", limits=replace(LIMITS, cpu_s=1))
    assert (-signal.SIGXCPU, "it used too much processor time") == (
        outcome.exit_code,
        outcome.problem,
    )
