from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tinker_ray.environments.code_runner import CodeLimits, run_python

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = CodeLimits(wall_s=20, cpu_s=5)
MARK = "tinker-ray-code-test-sleeper"


def test_a_program_reads_its_input_and_is_read() -> None:
    outcome = run_python("import sys; print(input()[::-1]); print('e', file=sys.stderr)", "añb\n")
    assert (0, "bña\n", "e\n", True, "") == (
        outcome.exit_code,
        outcome.stdout,
        outcome.stderr,
        outcome.ok,
        outcome.problem,
    )


def test_an_error_is_told_by_its_last_words() -> None:
    outcome = run_python("1/0")
    assert (1, False) == (outcome.exit_code, outcome.ok)
    assert outcome.problem.endswith("ZeroDivisionError: division by zero")


def test_a_program_sees_neither_the_workers_variables_nor_its_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-secret")
    outcome = run_python("import os; print(sorted(os.environ)); print(os.listdir())")
    variables, files = outcome.stdout.splitlines()
    assert "TINKER" not in variables
    assert "['main.py']" == files


def test_what_a_program_leaves_running_ends_with_it() -> None:
    program = (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '{MARK}'])"
    )
    assert run_python(program).ok
    _, alive = psutil.wait_procs(list(marked()), timeout=5)
    assert [] == alive


def marked() -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["cmdline", "status"]):
        is_dead = process.info["status"] == psutil.STATUS_ZOMBIE
        if MARK in (process.info["cmdline"] or []) and not is_dead:
            yield process


def test_a_program_that_wants_too_much_memory_fails() -> None:
    outcome = run_python("x = bytearray(10**9)", limits=replace(LIMITS, memory_bytes=200 * 2**20))
    assert outcome.problem.endswith("MemoryError")


def test_output_is_cut_at_its_limit() -> None:
    outcome = run_python("print('x' * 10000)", limits=replace(LIMITS, output_bytes=100))
    assert "x" * 100 == outcome.stdout
    assert not outcome.ok


def test_a_text_that_is_no_program_is_an_error_like_any_other() -> None:
    assert "SyntaxError" in run_python("I would say 12").problem
    assert not run_python("\udcff\x00").ok


def test_nothing_is_left_in_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_python("open('left', 'w').write('x')")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["wall_s", "cpu_s", "memory_bytes", "output_bytes"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        replace(LIMITS, **{name: 0})
