"""The adapter for the library verifiers, against a record of it, and itself if installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract import record_verifiers
from tinker_ray.environments.verifiers_tasks import EpisodeFailedError, library, verdict_of
from tinker_ray.errors import ConfigurationError

RECORD = json.loads((Path(__file__).parent / "golden" / "verifiers.json").read_text())
IS_INSTALLED = importlib.util.find_spec("verifiers") is not None and shutil.which("uv") is not None


def episode(number: int) -> Any:  # noqa: ANN401 - theirs
    """Give a recorded episode its attributes; names of rewards and metrics stay keys."""

    def attributes(value: object, *, names: bool = False) -> object:
        if isinstance(value, list):
            return [attributes(item) for item in value]
        if not isinstance(value, dict):
            return value
        if names:
            return {name: attributes(item) for name, item in value.items()}
        fields = {
            name: attributes(item, names=name in {"rewards", "metrics"})
            for name, item in value.items()
        }
        return SimpleNamespace(**fields)

    return attributes(RECORD["episodes"][number])


def test_what_the_adapter_uses_was_there_when_it_was_recorded() -> None:
    assert [] == [name for name, found in RECORD["surface"].items() if found == "missing"]
    assert ["self", "task", "ctx"] == RECORD["surface"]["Env.run_episode"][:3]
    assert ["config"] == RECORD["surface"]["load_environment"]


@pytest.mark.parametrize("number,reward", [(0, 2.0), (1, 0.0)])
def test_an_episodes_score_is_its_weighted_rewards(number: int, reward: float) -> None:
    verdict = verdict_of(episode(number))
    assert reward == verdict.reward
    assert {"asked": 1.0, "reward/right": reward} == verdict.metrics
    assert {"stop": "agent_completed"} == verdict.logs


def test_an_episode_without_a_score_fails_with_its_words() -> None:
    with pytest.raises(EpisodeFailedError, match=r"TaskError: .*ValueError: nobody knows"):
        verdict_of(episode(2))


def test_agents_that_are_not_trained_do_not_count() -> None:
    both = episode(0)
    both.traces.append(episode(1).traces[0])
    assert 1.0 == verdict_of(both).reward
    both.traces[1].agent.trainable = False
    assert 2.0 == verdict_of(both).reward
    both.traces[0].agent.trainable = False
    with pytest.raises(EpisodeFailedError, match="no trace of an agent that is trained"):
        verdict_of(both)


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", None)
    monkeypatch.delitem(sys.modules, "verifiers.v1", raising=False)
    with pytest.raises(ConfigurationError, match=r"tinker-ray\[verifiers\]"):
        library()


@pytest.mark.skipif(not IS_INSTALLED, reason="needs the extra verifiers, and uv")
def test_the_record_is_that_of_the_library() -> None:
    assert RECORD["surface"] == record_verifiers.surface()
