"""Python programs in a process of their own, with limits on processor, memory, time and output.

This is no security sandbox: the program runs as the same user, can read what that user can read,
and reaches the network. Run code that you do not trust in a container or a virtual machine, with a
worker in it. What it gets here: an empty folder, an environment without the worker's variables and
keys, and an end. Knows nothing of environments. Invariant: when a run is over, so are the processes
of its process group, and its folder is gone.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_LIMITED = """
import os, resource, sys
cpu, memory, size, files = map(int, sys.argv[1:5])
for kind, soft, hard in (
    (resource.RLIMIT_CPU, cpu, cpu + 1),
    (resource.RLIMIT_AS, memory, memory),
    (resource.RLIMIT_FSIZE, size, size),
    (resource.RLIMIT_NOFILE, files, files),
    (resource.RLIMIT_CORE, 0, 0),
):
    resource.setrlimit(kind, (soft, hard))
os.execv(sys.executable, [sys.executable, "-I", "-X", "utf8", *sys.argv[5:]])
"""
"""Sets the limits, then becomes the program: safe where the worker has threads, unlike a function
between fork and exec."""


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """What a program may use.

    Attributes:
        wall_s: Seconds until it is killed.
        cpu_s: Seconds of processor time, of each of its processes.
        memory_bytes: Address space of each of its processes; an interpreter needs about 30 MB.
        output_bytes: Of standard output, of standard error, and of each file that it writes.
        open_files: How many files at once.
    """

    wall_s: float = 10.0
    cpu_s: float = 5.0
    memory_bytes: int = 512 * 1024**2
    output_bytes: int = 64 * 1024
    open_files: int = 64

    def __post_init__(self) -> None:
        """Refuse limits that are none.

        Raises:
            ValueError: One is not above 0.
        """
        for name in ("wall_s", "cpu_s", "memory_bytes", "output_bytes", "open_files"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give more than 0")


@dataclass(frozen=True, slots=True)
class CodeOutcome:
    """What became of a program.

    Attributes:
        exit_code: As it ended; minus the number of the signal that killed it.
        stdout: What it wrote, up to the limit.
        stderr: The same of standard error.
        timed_out: Whether it was killed because it took too long.
    """

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """Whether it came to its end without an error."""
        return self.exit_code == 0 and not self.timed_out

    @property
    def problem(self) -> str:
        """Say in words how it failed; empty if it did not."""
        if self.timed_out:
            return "it took too long"
        if self.exit_code == -signal.SIGXCPU:
            return "it used too much processor time"
        if self.exit_code < 0:
            return f"it was killed by signal {-self.exit_code}"
        return "" if self.exit_code == 0 else self.stderr.strip()[-500:] or "it failed"


def run_python(source: str, stdin: str = "", limits: CodeLimits | None = None) -> CodeOutcome:
    """Run a program to its end; it blocks for as long as that takes.

    Args:
        source: The program.
        stdin: What it can read.
        limits: What it may use.
    """
    limits = limits or CodeLimits()
    with tempfile.TemporaryDirectory(prefix="tinker-ray-code-") as folder:
        place = Path(folder)
        work = place / "work"
        work.mkdir()
        (work / "main.py").write_text(source, encoding="utf-8", errors="replace")
        (place / "stdin").write_text(stdin, encoding="utf-8", errors="replace")
        exit_code, timed_out = _run(place, work, limits)
        return CodeOutcome(
            exit_code,
            _read(place / "stdout", limits.output_bytes),
            _read(place / "stderr", limits.output_bytes),
            timed_out,
        )


def _run(place: Path, work: Path, limits: CodeLimits) -> tuple[int, bool]:
    numbers = (
        math.ceil(limits.cpu_s),
        limits.memory_bytes,
        limits.output_bytes,
        limits.open_files,
    )
    arguments = [*map(str, numbers), "main.py"]
    environment = {"PATH": os.defpath, "HOME": str(work), "TMPDIR": str(work), "LANG": "C.UTF-8"}
    with (
        (place / "stdin").open("rb") as stdin,
        (place / "stdout").open("wb") as stdout,
        (place / "stderr").open("wb") as stderr,
    ):
        process = subprocess.Popen(  # noqa: S603 - what this is for; see the module's words
            [sys.executable, "-I", "-S", "-c", _LIMITED, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=work,
            env=environment,
            start_new_session=True,
        )
        try:
            return process.wait(limits.wall_s), False
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL, True
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the program and of those that it started in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(path: Path, limit: int) -> str:
    with path.open("rb") as file:
        return file.read(limit).decode("utf-8", errors="replace")
