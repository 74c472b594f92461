"""Runs on examples, on the embedded engine: they learn, go on, and clean up after themselves."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.e2e import command
from tests.e2e.test_rl_service import unload
from tinker_ray import ServiceClient
from tinker_ray.clients.tokenizer import load_tokenizer
from tinker_ray.rl.examples import ExampleDataset
from tinker_ray.rl.examples_loop import ExamplesSummary
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.retention import ServiceStore
from tinker_ray.rl.run_directory import open_run
from tinker_ray.rl.sft import adder_examples
from tinker_ray.rl.supervised import train_on_examples
from tinker_ray.rl.supervised_config import DpoConfig, SftConfig
from tinker_ray.types import Datum


def trained(
    config: SftConfig | DpoConfig, root: Path, dataset: ExampleDataset[Any] | None = None
) -> ExamplesSummary:
    progress = Progress(Console(file=io.StringIO()))
    with closing(open_run(config, root=root)) as directory:
        return asyncio.run(
            train_on_examples(config, directory, progress=progress, mode="local", dataset=dataset)
        )


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


@dataclass
class CutOff:
    """Examples that end a run in its middle."""

    examples: ExampleDataset[Datum]
    at: int

    def batch(self, step: int) -> Sequence[Datum]:
        if step == self.at:
            raise EOFError("cut off")
        return self.examples.batch(step)

    def held_out(self) -> Sequence[Datum]:
        return self.examples.held_out()


@dataclass
class Unloads:
    """Examples that have the model unloaded in the middle of a run, once."""

    examples: ExampleDataset[Datum]
    at: int
    written: Path
    url: str

    def batch(self, step: int) -> Sequence[Datum]:
        if step == self.at:
            self.at = -1
            path = json.loads(self.written.read_text().splitlines()[0])["path"]
            unload(self.url, path.removeprefix("tinker://").partition("/")[0])
        return self.examples.batch(step)

    def held_out(self) -> Sequence[Datum]:
        return self.examples.held_out()


def test_a_run_that_was_cut_off_or_lost_its_model_learns_what_it_would_have_learnt(
    embedded_engine: str, tmp_path: Path
) -> None:
    config = SftConfig(steps=8, batch_size=16, checkpoint_every=3, learning_rate=5e-3)
    whole = trained(config, tmp_path / "whole")
    examples = adder_examples(config, load_tokenizer(config.base_model))
    with pytest.raises(EOFError):
        trained(config, tmp_path / "cut", CutOff(examples, at=6))
    resumed = trained(config, tmp_path / "cut")
    written = tmp_path / "lost" / "latest" / "checkpoints.jsonl"
    lost = trained(config, tmp_path / "lost", Unloads(examples, 6, written, embedded_engine))
    assert (0, 1, 1) == (whole.resumes, resumed.resumes, lost.resumes)
    assert pytest.approx(whole.after, rel=1e-3) == resumed.after
    assert pytest.approx(whole.after, rel=1e-3) == lost.after


async def test_the_weights_that_a_sampler_uses_are_known_to_be_in_use(
    service: ServiceClient,
) -> None:
    training = await service.create_lora_training_client_async("tinker-ray/tiny-adder", rank=4)
    saved = await training.save_weights_for_sampler("used")
    rest = service.create_rest_client()
    store = ServiceStore(rest, service.holder.get_session_id(), ["tinker://its/own"])
    assert {"tinker://its/own"} == await store.in_use()
    await service.create_sampling_client_async(model_path=saved.path)
    assert {"tinker://its/own", saved.path} == await store.in_use()
    await store.delete(saved.path)
    await store.delete(saved.path)
    run_id = saved.path.removeprefix("tinker://").split("/")[0]
    assert [] == (await rest.list_checkpoints_async(run_id)).checkpoints


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
