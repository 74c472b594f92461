"""The picture of a run: reward per step, held-out accuracy where it was measured.

Loads matplotlib on use, without a display. Knows nothing of run directories.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from tinker_ray.rl.record import StepRecord


def plot_reward(records: Sequence[StepRecord], accuracy_before: float | None, path: Path) -> bool:
    """Draw ``reward.png``.

    Returns:
        Whether there is a picture: False if matplotlib is not installed.
    """
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError:
        return False
    figure = figures.Figure(figsize=(7, 4), dpi=110, layout="constrained")
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
