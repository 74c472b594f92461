from __future__ import annotations

from pathlib import Path

import pytest

from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.supervised_config import DpoConfig, SftConfig, load


def test_the_kind_of_a_run_is_a_setting(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('kind = "dpo"\nbeta = 0.2\nsteps = 7\n')
    assert DpoConfig(beta=0.2, steps=9) == load(path, {"steps": 9, "seed": None})
    assert SftConfig(steps=3) == load(None, {"kind": "sft", "steps": "3"})
    assert RunConfig(steps=3) == load(None, {"steps": 3})
    assert RunConfig() == load(None, {"kind": "rl"})


@pytest.mark.parametrize(
    "text,problem",
    [
        ('kind = "sft"\nbeta = 0.1\n', "beta"),
        ('kind = "ppo"\n', "'sft', 'dpo'"),
        ('kind = "sft"\nloggers = ["excel"]\n', "loggers"),
        ("kind = \n", "cannot read"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=problem):
        load(path)


@pytest.mark.parametrize(
    "schedule,rates",
    [("linear", [1.0, 0.6, 0.2]), ("cosine", [1.0, 0.6, 0.2]), ("constant", [1.0] * 3)],
)
def test_the_learning_rate_follows_its_schedule(schedule: str, rates: list[float]) -> None:
    config = SftConfig.model_validate(
        {"steps": 3, "learning_rate": 1.0, "learning_rate_end": 0.2, "schedule": schedule}
    )
    assert pytest.approx(rates) == [config.learning_rate_at(step) for step in range(3)]


def test_the_learning_rate_rises_at_first() -> None:
    config = SftConfig(steps=6, warmup_steps=3, learning_rate=1.0, schedule="constant")
    assert [0.25, 0.5, 0.75, 1.0, 1.0, 1.0] == [config.learning_rate_at(step) for step in range(6)]


@pytest.mark.parametrize("kind", ["rl", "sft", "dpo"])
def test_loggers_may_be_named_on_the_command_line(kind: str) -> None:
    config = load(None, {"kind": kind, "loggers": "wandb,tensorboard"})
    assert ("wandb", "tensorboard") == config.loggers
