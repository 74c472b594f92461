from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.record import Manifest, StepRecord, Summary
from tinker_ray.rl.run_directory import open_run

CONFIG = RunConfig(seed=3)


def record(step: int, eval_accuracy: float | None = None) -> StepRecord:
    return StepRecord(
        step=step,
        reward=0.5,
        accuracy=0.5,
        eval_accuracy=eval_accuracy,
        entropy=0.1,
        kl_sample_train=0.0,
        loss=0.0,
        num_constant_groups=0,
        num_dropped_groups=0,
        num_tokens=10,
        tokens_per_s=1.0,
        peak_in_flight=1,
        rollout_s=1.0,
        train_s=1.0,
        step_s=2.0,
    )


def test_a_new_run_gets_a_directory_and_latest_points_to_it(tmp_path: Path) -> None:
    run = open_run(CONFIG, root=tmp_path / "runs")
    assert (tmp_path / "runs" / "latest").resolve() == run.path
    assert RunConfig.model_validate_json((run.path / "config.json").read_text()) == CONFIG
    assert (run.is_resumed, run.manifest) == (False, Manifest())
    run.close()


def test_an_unfinished_run_with_equal_settings_is_gone_on_with(tmp_path: Path) -> None:
    first = open_run(CONFIG, root=tmp_path)
    for step in (1, 2, 3):
        first.append_step(record(step))
    manifest = Manifest(steps_done=2, checkpoint="tinker://m/weights/2", accuracy_before=0.4)
    first.write_manifest(manifest)
    first.close()
    second = open_run(CONFIG, root=tmp_path)
    assert (second.path, second.is_resumed, second.manifest) == (first.path, True, manifest)
    assert [line.step for line in second.steps()] == [1, 2]
    second.close()


@pytest.mark.parametrize("finished,config", [(True, CONFIG), (False, RunConfig(seed=4))])
def test_a_finished_run_or_other_settings_begin_a_new_one(
    tmp_path: Path, config: RunConfig, *, finished: bool
) -> None:
    first = open_run(CONFIG, root=tmp_path)
    first.write_manifest(Manifest(finished=finished))
    first.close()
    second = open_run(config, root=tmp_path)
    assert second.path != first.path
    assert (tmp_path / "latest").resolve() == second.path
    second.close()


def test_a_run_that_another_process_writes_to_is_left_alone(tmp_path: Path) -> None:
    first = open_run(CONFIG, root=tmp_path)
    second = open_run(CONFIG, root=tmp_path)
    assert second.path != first.path
    first.close()
    second.close()


def test_a_directory_of_ones_own_choice_is_used_and_gone_on_with(tmp_path: Path) -> None:
    chosen = tmp_path / "mine"
    open_run(CONFIG, root=tmp_path / "runs", run_dir=chosen).close()
    again = open_run(CONFIG, root=tmp_path / "runs", run_dir=chosen)
    assert (again.path, again.is_resumed) == (chosen, True)
    assert (tmp_path / "runs" / "latest").resolve() == chosen
    again.close()
    with pytest.raises(ConfigurationError, match="choose another"):
        open_run(RunConfig(seed=9), root=tmp_path / "runs", run_dir=chosen)


def test_a_torn_manifest_counts_as_none(tmp_path: Path) -> None:
    first = open_run(CONFIG, root=tmp_path)
    first.close()
    (first.path / "manifest.json").write_text("{")
    second = open_run(CONFIG, root=tmp_path)
    assert (second.path, second.manifest) == (first.path, Manifest())
    second.close()


def test_everything_written_is_readable_and_no_temporary_file_stays(tmp_path: Path) -> None:
    run = open_run(CONFIG, root=tmp_path)
    run.append_step(record(1, eval_accuracy=0.75))
    run.append_checkpoint(1, "tinker://m/weights/1")
    run.write_transcript("step-0001", "text")
    summary = Summary(
        accuracy_before=0.4,
        accuracy_after=0.9,
        steps=1,
        seconds=2.5,
        seed=3,
        mode="local",
        eval_episodes=8,
        resumes=0,
        checkpoint=None,
        run_directory=str(run.path),
    )
    run.write_summary(summary)
    assert run.plot()
    assert json.loads((run.path / "summary.json").read_text())["accuracy_after"] == 0.9
    assert json.loads((run.path / "checkpoints.jsonl").read_text())["steps_done"] == 1
    assert (run.path / "reward.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in run.path.iterdir()) == [
        ".lock",
        "checkpoints.jsonl",
        "config.json",
        "manifest.json",
        "metrics.jsonl",
        "reward.png",
        "rollouts",
        "summary.json",
    ]
    run.close()
