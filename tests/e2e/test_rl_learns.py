from __future__ import annotations

import json
import os
from pathlib import Path

from tests.e2e import command

EXPECTED_FILES = {
    "checkpoints.jsonl",
    "config.json",
    "manifest.json",
    "metrics.jsonl",
    "reward.png",
    "rollouts",
    "summary.json",
}


def test_the_demo_learns_to_add_on_ray_and_leaves_nothing_running(tmp_path: Path) -> None:
    output = command.run(*command.CLI, "demo", "--seed", "2", cwd=tmp_path)
    summary = command.summary(tmp_path)
    assert summary["accuracy_before"] <= 0.55, output
    assert summary["accuracy_after"] >= 0.90, output
    assert summary["eval_episodes"] >= 256
    assert (summary["mode"], summary["seed"]) == ("cluster", 2)
    written = {path.name for path in (tmp_path / "runs" / "latest").iterdir()}
    assert written >= EXPECTED_FILES
    assert "run directory:" in output
    assert "held-out problems, after training:" in output
    assert command.survivors(tmp_path) == []


def test_a_model_learns_to_use_a_tool_over_several_turns(
    tmp_path: Path, embedded_engine: str
) -> None:
    config = str(command.REPOSITORY / "examples" / "sums.toml")
    output = command.run(
        *command.CLI,
        *("train", config, "--seed", "0", "--steps", "3"),
        *("--set", "eval_every=0", "--set", "eval_samples=2"),
        cwd=tmp_path,
        TINKER_RAY_HOME=os.environ["TINKER_RAY_HOME"],
    )
    summary = command.summary(tmp_path)
    assert summary["accuracy_before"] <= 0.25, output
    assert summary["accuracy_after"] >= 0.35, output
    transcript = (tmp_path / "runs" / "latest" / "rollouts" / "after.txt").read_text()
    assert transcript.count(" in 3 turns") >= 64


def test_a_run_takes_its_settings_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        "steps = 2\nprompts_per_step = 4\nsamples_per_prompt = 4\neval_problems = 8\n"
        'loggers = ["tensorboard"]\nkeep_checkpoints = 1\n'
    )
    arguments = ("run.toml", "--steps", "1", "--loss-fn", "ppo", "--set", "eval_samples=2")
    as_well = ("--set", "max_staleness=1")  # which has an option of its own
    command.run(*command.CLI, "train", *arguments, *as_well, cwd=tmp_path)
    summary = command.summary(tmp_path)
    assert (summary["steps"], summary["eval_episodes"], summary["mode"]) == (1, 16, "local")
    settings = json.loads((tmp_path / "runs" / "latest" / "config.json").read_text())
    assert 1 == settings["max_staleness"]
    written = {path.name for path in (tmp_path / "runs" / "latest").iterdir()}
    assert written >= {"metrics.png", "tensorboard"}


def test_wrong_settings_are_one_line_and_an_exit_code(tmp_path: Path) -> None:
    with command.started(*command.CLI, "train", "--rank", "0", cwd=tmp_path) as process:
        assert process.wait(60) == 1
    assert "rank" in (tmp_path / "output.txt").read_text()
