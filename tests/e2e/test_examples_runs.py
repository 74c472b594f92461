"""Runs on examples, on the embedded engine: they learn, go on, and clean up after themselves."""

from __future__ import annotations

import asyncio
import io
import json
import os
from contextlib import closing
from pathlib import Path

from rich.console import Console

from tests.e2e import command
from tinker_ray import ServiceClient
from tinker_ray.rl.examples_loop import ExamplesSummary
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.run_directory import open_run
from tinker_ray.rl.supervised import train_on_examples
from tinker_ray.rl.supervised_config import DpoConfig, SftConfig


def trained(config: SftConfig | DpoConfig, root: Path) -> ExamplesSummary:
    progress = Progress(Console(file=io.StringIO()))
    with closing(open_run(config, root=root)) as directory:
        return asyncio.run(train_on_examples(config, directory, progress=progress, mode="local"))


def test_preferences_are_learnt(embedded_engine: str, tmp_path: Path) -> None:
    config = DpoConfig(steps=16, batch_size=16, learning_rate=1e-3, checkpoint_every=16)
    summary = trained(config, tmp_path)
    before, after = summary.before, summary.after
    assert abs(before["eval_margin"]) < 1e-3
    assert after["eval_margin"] > 0.02
    assert after["eval_accuracy"] >= 0.70
    assert after["eval_loss"] < before["eval_loss"] - 0.01


def test_sums_are_learnt_from_their_answers_and_old_checkpoints_go(
    service: ServiceClient, tmp_path: Path
) -> None:
    config = SftConfig(
        steps=20, learning_rate=5e-3, checkpoint_every=5, eval_every=5, keep_checkpoints=1
    )
    summary = trained(config, tmp_path)
    assert summary.after["eval_loss"] < 0.6 * summary.before["eval_loss"]
    assert summary.checkpoint is not None
    run_id = summary.checkpoint.removeprefix("tinker://").split("/")[0]
    kept = service.create_rest_client().list_checkpoints(run_id).result().checkpoints
    written = [
        json.loads(line)["path"]
        for line in (tmp_path / "latest" / "checkpoints.jsonl").read_text().splitlines()
    ]
    assert 4 == len(written)
    left = {checkpoint.tinker_path for checkpoint in kept} & set(written)
    assert summary.checkpoint in left
    assert len(left) <= 2


def test_a_file_of_conversations_is_trained_on_from_the_command_line(
    embedded_engine: str, tmp_path: Path
) -> None:
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"What is {a}+{a}?"},
                {"role": "assistant", "content": f"{2 * a}"},
            ]
        }
        for a in range(20)
    ]
    examples = tmp_path / "sums.jsonl"
    examples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "run.toml").write_text(
        'kind = "sft"\ndataset = "sums.jsonl"\nloggers = ["tensorboard"]\n'
    )
    output = command.run(
        *command.CLI,
        *("train", "run.toml", "--steps", "2", "--set", "batch_size=4", "--mode", "local"),
        cwd=tmp_path,
        TINKER_RAY_HOME=os.environ["TINKER_RAY_HOME"],
    )
    assert "held-out loss" in output
    latest = tmp_path / "runs" / "latest"
    lines_written = (latest / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines_written]
    assert [0, 1, 2] == steps
    assert [True] == [path.stat().st_size > 0 for path in (latest / "tensorboard").iterdir()]
