"""A script runs as a Ray job, on a cluster that it finds by itself."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e import command

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = """
import socket, sys
import ray

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
context = ray.init(
    "local", num_cpus=2, include_dashboard=True, dashboard_port=port, logging_level="ERROR"
)
print(context.dashboard_url, flush=True)
sys.stdin.read()
ray.shutdown()
"""

MOST_SUBMISSIONS = 10
RUN = """
steps = 1
prompts_per_step = 4
samples_per_prompt = 4
eval_problems = 4
eval_samples = 1
"""


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Start a cluster in a process of its own and give the address of its dashboard."""
    with subprocess.Popen(
        [sys.executable, "-c", HEAD],
        cwd=folder,
        env=command.environment(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as head:
        assert head.stdout is not None
        address = head.stdout.readline().strip()
        yield f"http://{address}"
        head.communicate("")


def submit(address: str, folder: Path, *entrypoint: str) -> subprocess.CompletedProcess[str]:
    """Submit a job and follow it to its end; a cluster whose agent is not up yet is asked again."""
    for _ in range(MOST_SUBMISSIONS):
        job = subprocess.run(
            [
                *(Path(sys.executable).with_name("ray"), "job", "submit"),
                *("--address", address, "--", *entrypoint),
            ],
            env=command.environment(folder),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        if "No available agent to submit job" not in job.stderr:
            break
    return job


def test_the_training_command_runs_as_a_ray_job_and_finds_its_cluster(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    train = f"cd {tmp_path} && {sys.executable} -m tinker_ray.cli train run.toml"
    with cluster(tmp_path) as address:
        job = submit(address, tmp_path, "bash", "-c", train)
    assert 0 == job.returncode, job.stdout + job.stderr
    assert "cluster mode" in job.stdout
    summary = command.summary(tmp_path)
    assert ("cluster", 1) == (summary["mode"], summary["steps"])
    assert [] == command.survivors(tmp_path)
