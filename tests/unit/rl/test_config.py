from __future__ import annotations

from pathlib import Path

import pytest

from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.config import RunConfig, load
from tinker_ray.rl.train import find_dataset


def test_defaults_are_those_of_the_demo() -> None:
    config = RunConfig()
    assert (config.prompts_per_step, config.samples_per_prompt, config.rank) == (64, 8, 16)
    assert (config.learning_rate, config.loss_fn) == (2e-3, "importance_sampling")


def test_the_learning_rate_falls_evenly_to_its_end() -> None:
    config = RunConfig(steps=3, learning_rate=2.0, learning_rate_end=0.5)
    assert [config.learning_rate_at(step) for step in range(3)] == [2.0, 1.5, 1.0]
    assert RunConfig(steps=1).learning_rate_at(0) == RunConfig().learning_rate


def test_overrides_win_over_the_file_and_none_is_no_override(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'steps = 7\nseed = 5\nloss_fn = "ppo"\n[loss_fn_config]\nclip_low_threshold = 0.9\n'
    )
    config = load(path, {"steps": 9, "seed": None})
    assert (config.steps, config.seed, config.loss_fn) == (9, 5, "ppo")
    assert config.loss_fn_config == {"clip_low_threshold": 0.9}


@pytest.mark.parametrize(
    "text,words", [("stepz = 1", "stepz"), ("steps = 0", "steps"), ("steps =", "cannot read")]
)
def test_a_setting_that_cannot_work_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        load(path)


@pytest.mark.parametrize("environment", ["chess", "no_such_module:make", "math:no_such", "math:pi"])
def test_an_unknown_environment_is_named(environment: str) -> None:
    with pytest.raises(ConfigurationError, match=environment):
        find_dataset(environment)
