"""What a run directory passes on: numbers to loggers, checkpoints to retention."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.record import Manifest, StepRecord
from tinker_ray.rl.retention import KeepRule, Retention
from tinker_ray.rl.run_directory import RunDirectory, open_run


@dataclass
class Witness:
    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    closed: bool = False
    deleted: list[str] = field(default_factory=list)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.rows.append((step, dict(metrics)))

    def close(self) -> None:
        self.closed = True

    async def in_use(self) -> Collection[str]:
        return ()

    async def delete(self, path: str) -> None:
        self.deleted.append(path)


def record(step: int, *, loss: float = 0.5, accuracy: float | None = None) -> StepRecord:
    return StepRecord(
        step=step,
        reward=0.25,
        accuracy=0.25,
        eval_accuracy=accuracy,
        entropy=1.0,
        kl_sample_train=0.0,
        loss=loss,
        num_constant_groups=1,
        num_dropped_groups=0,
        num_tokens=10,
        tokens_per_s=5.0,
        peak_in_flight=2,
        rollout_s=1.0,
        train_s=1.0,
        step_s=2.0,
    )


async def checkpoint(directory: RunDirectory, step: int, accuracy: float) -> None:
    directory.append_step(record(step, accuracy=accuracy))
    directory.append_checkpoint(step, f"c{step}")
    directory.write_manifest(Manifest(steps_done=step, checkpoint=f"c{step}"))
    await directory.delete_superfluous_checkpoints()


def test_a_logger_gets_the_numbers_of_a_step_and_ends_with_the_directory(tmp_path: Path) -> None:
    witness = Witness()
    with closing(open_run(RunConfig(), root=tmp_path)) as directory:
        directory.logger = witness
        directory.append_step(record(3))
    ((step, metrics),) = witness.rows
    assert (3, 0.5, 10.0) == (step, metrics["loss"], metrics["num_tokens"])
    assert {"step", "eval_accuracy"}.isdisjoint(metrics)
    assert witness.closed


def test_a_loss_that_diverged_can_be_read_again(tmp_path: Path) -> None:
    with closing(open_run(RunConfig(), root=tmp_path)) as directory:
        directory.append_step(record(1, loss=math.nan))
        assert [None] == [row["loss"] for row in directory.rows()]
        assert [True] == [math.isnan(step.loss) for step in directory.steps()]
        assert [None] == [step.eval_accuracy for step in directory.steps()]


async def test_the_newest_checkpoint_and_the_most_accurate_one_stay(tmp_path: Path) -> None:
    witness = Witness()
    with closing(open_run(RunConfig(), root=tmp_path)) as directory:
        directory.retention = Retention(KeepRule(last=1), witness)
        for step, accuracy in enumerate((0.5, 0.9, 0.7, 0.8), 1):
            await checkpoint(directory, step, accuracy)
        assert ["c2", "c4"] == directory.retention.kept
    assert ["c1", "c3"] == witness.deleted


async def test_an_evaluation_is_written_to_the_step_that_it_judged(tmp_path: Path) -> None:
    witness = Witness()
    with closing(open_run(RunConfig(), root=tmp_path)) as directory:
        directory.logger = witness
        for step in (1, 2, 3):
            directory.append_step(record(step, loss=math.nan))
        await directory.add_evaluation(2, accuracy=0.75, eval_s=1.5, ended_s=9.0)
        assert [None, 0.75, None] == [step.eval_accuracy for step in directory.steps()]
        assert [1, 2, 3] == [step.step for step in directory.steps()]
    expected = {"eval_accuracy": 0.75, "eval_s": 1.5, "eval_elapsed_s": 9.0}
    assert (2, expected) == witness.rows[-1]


def test_a_line_that_a_crash_cut_off_is_forgotten(tmp_path: Path) -> None:
    with closing(open_run(RunConfig(), root=tmp_path)) as directory:
        directory.append_step(record(1))
        with (directory.path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 2, "rew')
        directory.forget_after(5)
        assert [1] == [step.step for step in directory.steps()]
