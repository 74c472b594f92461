from __future__ import annotations

from pathlib import Path
from typing import Any

from tinker_ray.rl.plot import panels_of, plot_metrics

PNG = b"\x89PNG\r\n\x1a\n"
ROWS: list[dict[str, Any]] = [
    {"step": 0, "eval_loss": 2.0},
    {"step": 1, "loss": 1.5, "tokens_per_s": 100.0},
    {"step": 2, "loss": None, "eval_loss": 1.0, "tokens_per_s": 120.0},
]


def test_a_panel_holds_what_was_measured_where_it_was() -> None:
    assert {
        "loss": {"loss": [(1, 1.5)], "eval_loss": [(0, 2.0), (2, 1.0)]},
        "tokens/s": {"tokens_per_s": [(1, 100.0), (2, 120.0)]},
    } == panels_of(ROWS)


def test_the_picture_of_a_run_is_a_png(tmp_path: Path) -> None:
    path = tmp_path / "metrics.png"
    assert plot_metrics(ROWS, path, {0: 10, 1: 4, 2: 1})
    assert path.read_bytes().startswith(PNG)


def test_there_is_no_picture_of_nothing(tmp_path: Path) -> None:
    assert not plot_metrics([{"step": 1}], tmp_path / "metrics.png")
    assert [] == list(tmp_path.iterdir())
