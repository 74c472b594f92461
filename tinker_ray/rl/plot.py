"""The pictures of a run: what it earned, its losses, how fast it was, how old its rollouts were.

Loads matplotlib on use, without a display. Knows nothing of run directories. Invariant: a panel is
drawn for what was measured, and none for what was not.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinker_ray.rl.record import StepRecord

Row = Mapping[str, Any]
PANEL_HEIGHT = 2.8
"""In inches."""
PANELS: Mapping[str, Sequence[str]] = {
    "reward, accuracy": ("reward", "accuracy", "eval_accuracy"),
    "loss": ("loss", "eval_loss"),
    "implicit reward": ("margin", "eval_margin", "chosen_reward", "rejected_reward"),
    "tokens/s": ("tokens_per_s",),
    "seconds": ("step_s", "rollout_s", "train_s"),
    "nats per token": ("entropy", "kl_sample_train"),
}
"""What is drawn together, by the name of its axis."""


def plot_reward(records: Sequence[StepRecord], accuracy_before: float | None, path: Path) -> bool:
    """Draw ``reward.png``: reward per step, held-out accuracy where it was measured.

    Returns:
        Whether there is a picture: False if matplotlib is not installed.
    """
    figure = _figure(7, 4, layout="constrained")
    if figure is None:
        return False
    axes = figure.subplots()
    axes.plot([r.step for r in records], [r.reward for r in records], label="training reward")
    evaluated = [(r.step, r.eval_accuracy) for r in records if r.eval_accuracy is not None]
    if accuracy_before is not None:
        evaluated.insert(0, (0, accuracy_before))
    axes.plot(
        [step for step, _ in evaluated],
        [accuracy for _, accuracy in evaluated],
        marker="o",
        label="held-out accuracy",
    )
    axes.set(xlabel="step", ylabel="mean per episode", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path)
    return True


def plot_metrics(
    rows: Sequence[Row], path: Path, staleness: Mapping[int, int] | None = None
) -> bool:
    """Draw ``metrics.png``: all that was measured, over the steps, in panels.

    Args:
        rows: The lines of ``metrics.jsonl``.
        path: The file.
        staleness: How many groups were trained on at each age, in versions; None if that was not
            counted.

    Returns:
        Whether there is a picture: False if matplotlib is not installed or nothing was measured.
    """
    panels = panels_of(rows)
    count = len(panels) + bool(staleness)
    rows_of_panels = (count + 1) // 2
    height = PANEL_HEIGHT * rows_of_panels
    figure = _figure(11, height) if count else None
    if figure is None:
        return False
    # Margins by hand: a layout engine would draw everything twice.
    figure.subplots_adjust(0.07, 0.5 / height, 0.98, 1 - 0.15 / height, 0.18, 0.3)
    places = list(figure.subplots(rows_of_panels, 2, squeeze=False).flat)
    for axes, (label, curves) in zip(places, panels.items(), strict=False):
        for name, points in curves.items():
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=name, marker="o" if name.startswith("eval_") else None)
        axes.set(xlabel="step", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    if staleness:
        axes = places[len(panels)]
        axes.bar(list(staleness), list(staleness.values()))
        axes.set(xlabel="staleness in versions", ylabel="groups", xticks=sorted(staleness))
    for axes in places[count:]:
        axes.set_axis_off()
    figure.savefig(path)
    return True


def panels_of(rows: Sequence[Row]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Sort what was measured into panels: curves by name, as points of step and value."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for label, names in PANELS.items():
        curves = {
            name: [(row["step"], row[name]) for row in rows if row.get(name) is not None]
            for name in names
        }
        found = {name: points for name, points in curves.items() if points}
        if found:
            panels[label] = found
    return panels


def _figure(width: float, height: float, layout: str = "none") -> Any:  # noqa: ANN401 - or None
    """Make a figure of a size in inches; None if matplotlib is not installed."""
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError:
        return None
    return figures.Figure(figsize=(width, height), dpi=110, layout=layout)
