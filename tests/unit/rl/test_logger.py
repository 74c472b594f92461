from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.logger import JsonlLogger, LoggerGroup, TrackerName, numbers_of, open_loggers


@dataclass
class Collector:
    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    closed: int = 0

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.rows.append((step, dict(metrics)))

    def close(self) -> None:
        self.closed += 1


class Failing:
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        del step, metrics
        raise OSError("the disk is full")

    def close(self) -> None:
        raise OSError("still full")


def test_a_step_is_a_line_and_what_is_not_finite_is_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    logger = JsonlLogger(path)
    logger.log(1, {"loss": 0.5})
    logger.log(2, {"loss": float("nan"), "learning_rate": float("inf")})
    logger.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": None, "learning_rate": None},
    ] == lines


def test_a_logger_that_fails_is_warned_of_once_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    collector = Collector()
    group = LoggerGroup({"broken": Failing(), "good": collector})
    with caplog.at_level(logging.WARNING):
        group.log(1, {"loss": 2.0})
        group.log(2, {"loss": 1.0})
        group.close()
        group.close()
    assert [(1, {"loss": 2.0}), (2, {"loss": 1.0})] == collector.rows
    assert 1 == collector.closed
    assert 1 == len([r for r in caplog.records if "broken" in r.getMessage()])


@pytest.mark.parametrize("name,package", [("wandb", "wandb"), ("trackio", "trackio")])
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, name: str, package: str
) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(ConfigurationError, match=rf"tinker-ray\[{name}\]"):
        open_loggers([cast("TrackerName", name)], tmp_path)


def test_an_unknown_tracker_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'excel' is unknown"):
        open_loggers([cast("TrackerName", "excel")], tmp_path)


class FakeWandb(ModuleType):
    """Refuses rows that are older than its newest one, as wandb does."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.rows: dict[int, dict[str, float]] = {}
        self.axes: dict[str, str] = {}

    def init(self, **options: object) -> FakeWandb:
        del options
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        self.axes[name] = step_metric

    def log(self, row: dict[str, float], step: int) -> None:
        assert step >= max(self.rows, default=0)
        self.rows.setdefault(step, {}).update(row)

    def finish(self) -> None:
        return


def test_an_evaluation_that_comes_late_is_told_to_wandb_with_the_step_that_it_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    group = open_loggers(["wandb"], tmp_path)
    group.log(2, {"loss": 0.5})
    group.log(3, {"loss": 0.25})
    group.log(2, {"eval_accuracy": 0.75})
    group.close()
    late = {"eval_accuracy": 0.75, "evaluated_step": 2}
    assert {2: {"loss": 0.5}, 3: {"loss": 0.25, **late}} == wandb.rows
    assert {"eval_*": "evaluated_step"} == wandb.axes


def test_tensorboard_files_hold_the_points(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    group = open_loggers(["tensorboard"], tmp_path, jsonl=tmp_path / "metrics.jsonl")
    group.log(3, {"loss": 0.25, "reward": float("nan")})
    group.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"loss" in content
    assert b"reward" in content
    assert 3 == json.loads((tmp_path / "metrics.jsonl").read_text())["step"]


def test_only_numbers_of_a_record_are_logged() -> None:
    record = {"step": 4, "loss": 0.5, "count": 3, "eval_accuracy": None, "ok": True, "name": "x"}
    assert {"loss": 0.5, "count": 3.0} == numbers_of(record)
