"""What a pass says of itself beside its loss. Pure numpy.

Every name has one colon and a suffix that clients know how to combine over the parts of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinker_ray.engine.training.batch import NamedLoss
from tinker_ray.engine.training.loss import HIGH, LOSSES, LOW, RATIO_MASK

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from tinker_ray.engine.training.batch import TrainingBatch
    from tinker_ray.engine.training.datum_check import TrainingRow
    from tinker_ray.engine.training.forward_pass import LossResult

    Floats = npt.NDArray[np.float64]

_LARGEST_LOG_RATIO = 80.0


def pass_metrics(batch: TrainingBatch, result: LossResult) -> dict[str, float]:
    """Describe a pass.

    Losses with sampling logprobs tell how far the model is from the one that sampled, over the
    cells that have an advantage: mean and largest ratio, the share of ratios outside of the clip
    range, and the estimate of KL(sampler || model) by the mean of r - 1 - log r, which is never
    negative.

    Source: http://joschu.net/blog/kl-approx.html (k3).
    """
    metrics = {"tokens:sum": float(sum(row.length for row in batch.rows)), **result.metrics}
    if not isinstance(batch.loss, NamedLoss):
        return metrics
    if LOSSES[batch.loss.name].is_surrogate:
        metrics[f"surrogate_{batch.loss.name}:max"] = 1.0
    if "logprobs" in batch.rows[0].inputs:
        metrics |= _ratio_metrics(batch.rows, batch.loss, result)
    return metrics


def _ratio_metrics(
    rows: Sequence[TrainingRow], loss: NamedLoss, result: LossResult
) -> dict[str, float]:
    pairs = list(zip(rows, result.logprobs, strict=True))
    log_ratios = [_log_ratios(row, logprobs) for row, logprobs in pairs]
    sequence = [_of_sequence(row, part) for row, part in zip(rows, log_ratios, strict=True)]
    ratios = np.exp(np.minimum(np.concatenate(sequence), _LARGEST_LOG_RATIO))
    counts = np.concatenate([row.inputs["advantages"].reshape(-1) != 0 for row in rows])
    if not counts.any():
        counts[:] = True
    metrics = {
        "ratio:mean": float(ratios[counts].mean()),
        "ratio:max": float(ratios[counts].max()),
        "sampler_kl:mean": _kl(np.concatenate(log_ratios)[counts]),
    }
    if LOW in loss.config:
        low, high = (_thresholds(rows, key, loss.config[key]) for key in (LOW, HIGH))
        clipped = (ratios < low) | (ratios > high)
        metrics["clip_fraction:mean"] = float(clipped[counts].mean())
    return metrics


def _log_ratios(row: TrainingRow, logprobs: npt.NDArray[np.float32]) -> Floats:
    log_ratios: Floats = logprobs.astype(np.float64) - row.inputs["logprobs"]
    return log_ratios.reshape(-1)


def _of_sequence(row: TrainingRow, log_ratios: Floats) -> Floats:
    """Return the log-ratios that the loss uses: for ``gspo`` the mean of all that count."""
    if RATIO_MASK not in row.inputs:
        return log_ratios
    return np.full(log_ratios.size, log_ratios[row.inputs[RATIO_MASK] != 0].mean())


def _kl(log_ratios: Floats) -> float:
    ratios = np.exp(np.minimum(log_ratios, _LARGEST_LOG_RATIO))
    return float((ratios - 1 - log_ratios).mean())


def _thresholds(rows: Sequence[TrainingRow], key: str, default: float) -> Floats:
    return np.concatenate(
        [
            row.inputs[key].reshape(-1).astype(np.float64)
            if key in row.inputs
            else np.full(row.targets.size, default)
            for row in rows
        ]
    )
