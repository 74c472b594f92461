from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.fakes.tiny_model import VOCAB_SIZE, random_datum
from tinker_ray.engine.model.adapter import Adapter
from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.training.batch import TrainingBatch, prepare_batch, prepare_custom_batch
from tinker_ray.engine.training.custom_loss import CustomLoss, validate_graph
from tinker_ray.engine.training.datum_check import Limits
from tinker_ray.engine.training.forward_pass import LossResult, run_batch
from tinker_ray.engine.training.loss import LOSSES
from tinker_ray.engine.training.pass_metrics import pass_metrics
from tinker_ray.engine.training.recorded_samples import RecordedSample
from tinker_ray.engine.training.trained_model import TrainedModel
from tinker_ray.errors import EngineError
from tinker_ray.types import (
    Datum,
    LoraConfig,
    ModelInput,
    PromptProvenanceSpan,
    SampledProvenanceSpan,
    TensorData,
)

Logprobs = npt.NDArray[np.float32]

NAMED = [name for name, spec in LOSSES.items() if not spec.is_recorded]
WIDE = [name for name in NAMED if not LOSSES[name].is_flat]


def randomized(base: BaseModel) -> TrainedModel:
    """Start training from an adapter that changes the model."""
    adapter = Adapter.initial(base.targets, LoraConfig(rank=4, seed=1), base.device)
    generator = torch.Generator().manual_seed(2)
    adapter.flat.add_(torch.randn(adapter.flat.shape, generator=generator) * 0.02)
    return TrainedModel.start(adapter)


def prepare(data: Sequence[Datum], loss_fn: str, *, backward: bool = True) -> TrainingBatch:
    return prepare_batch(data, loss_fn, None, Limits(VOCAB_SIZE, 64), backward=backward)


def run(
    base: BaseModel, model: TrainedModel, data: Sequence[Datum], loss_fn: str, tokens: int = 64
) -> LossResult:
    return run_batch(base, model.adapter, prepare(data, loss_fn), batch_tokens=tokens)


def check_by_finite_differences(base: BaseModel, data: Sequence[Datum], loss_fn: str) -> None:
    model = randomized(base)
    first = run(base, model, data, loss_fn)
    batch = prepare(data, loss_fn, backward=False)

    def loss(flat: torch.Tensor) -> float:
        moved = Adapter.over(flat, model.adapter.targets, model.adapter.config)
        result = run_batch(base, moved, batch, batch_tokens=64)
        if loss_fn in {"cispo", "gspo"}:
            return with_held_ratios(batch, loss_fn, first.logprobs, result.logprobs)
        return result.loss_sum

    rng = np.random.default_rng(5)
    direction = torch.from_numpy(rng.normal(size=len(model.gradient)).astype(np.float32))
    direction /= direction.norm()
    flat, step = model.adapter.flat.detach(), 2e-3
    numeric = (loss(flat + step * direction) - loss(flat - step * direction)) / (2 * step)
    assert numeric == pytest.approx(float(model.gradient @ direction), rel=2e-2, abs=2e-3)


def with_held_ratios(
    batch: TrainingBatch, loss_fn: str, held: list[Logprobs], now: list[Logprobs]
) -> float:
    """Return the loss with what its stop-gradient holds taken from the logprobs ``held``."""
    total = 0.0
    for row, fixed, moved in zip(batch.rows, held, now, strict=True):
        log_ratios = fixed.astype(np.float64) - row.inputs["logprobs"]
        advantages = row.inputs["advantages"]
        if loss_fn == "cispo":
            ratios = np.clip(np.exp(log_ratios), 0.0, 4.0)
            total += float((-ratios * moved.astype(np.float64) * advantages).sum())
        else:
            mean = log_ratios[row.inputs["sequence_ratio_mask"] != 0].mean()
            ratios = np.exp(mean + moved.astype(np.float64) - fixed)
            clipped = np.clip(ratios, 0.8, 1.2)
            total -= float(np.minimum(ratios * advantages, clipped * advantages).sum())
    return total


@pytest.mark.parametrize("loss_fn", NAMED)
def test_gradients_through_the_model_agree_with_finite_differences(
    base: BaseModel, loss_fn: str
) -> None:
    rng = np.random.default_rng(3)
    check_by_finite_differences(base, [random_datum(rng, n, loss_fn) for n in (4, 9)], loss_fn)


@pytest.mark.parametrize("loss_fn", WIDE)
def test_gradients_of_many_targets_a_position_agree_with_finite_differences(
    base: BaseModel, loss_fn: str
) -> None:
    rng = np.random.default_rng(4)
    data = [random_datum(rng, length, loss_fn, width) for length, width in ((4, 3), (9, 1), (5, 3))]
    check_by_finite_differences(base, data, loss_fn)


def test_many_targets_a_position_are_as_many_datums_of_one_target(base: BaseModel) -> None:
    rng = np.random.default_rng(6)
    wide = random_datum(rng, 7, width=3)
    narrow = [
        Datum(
            wide.model_input,
            {
                key: TensorData.from_numpy(np.ascontiguousarray(tensor.to_numpy()[:, column]))
                for key, tensor in wide.loss_fn_inputs.items()
            },
        )
        for column in range(3)
    ]
    together, apart = randomized(base), randomized(base)
    one = run(base, together, [wide, random_datum(rng, 2)], "cross_entropy")
    alone = run(base, together, [wide], "cross_entropy")
    many = run(base, apart, narrow, "cross_entropy")
    assert (7, 3) == one.logprobs[0].shape
    np.testing.assert_allclose(one.logprobs[0], np.stack(many.logprobs, axis=1), atol=1e-5)
    assert many.loss_sum == pytest.approx(alone.loss_sum, rel=1e-6)


def test_sparse_targets_are_the_dense_ones(base: BaseModel) -> None:
    rng = np.random.default_rng(8)
    model = randomized(base)
    dense = random_datum(rng, 3, width=4)
    targets, weights = (tensor.to_numpy() for tensor in dense.loss_fn_inputs.values())
    targets, weights = targets.copy(), weights.copy()
    targets[0, 1:] = targets[2] = 0
    weights[0, 1:] = weights[2] = 0
    sparse = Datum(dense.model_input, {"target_tokens": csr(targets), "weights": csr(weights)})
    plain = Datum(dense.model_input, {"target_tokens": targets, "weights": weights})
    first = run(base, model, [sparse], "cross_entropy")
    gradient = model.gradient.clone()
    model.gradient.zero_()
    second = run(base, model, [plain], "cross_entropy")
    assert first.loss_sum == second.loss_sum
    assert torch.equal(gradient, model.gradient)
    np.testing.assert_array_equal(first.logprobs[0], second.logprobs[0])


def csr(array: npt.NDArray[np.generic]) -> TensorData:
    rows, columns = np.nonzero(array)
    crow = np.searchsorted(rows, np.arange(len(array) + 1)).tolist()
    dtype = "int64" if array.dtype.kind == "i" else "float32"
    return TensorData(array[rows, columns], dtype, array.shape, crow, columns.tolist())  # type: ignore[arg-type]


def test_targets_of_several_widths_keep_their_shapes_in_any_packing(base: BaseModel) -> None:
    rng = np.random.default_rng(9)
    widths = [0, 5, 2, 1, 5]
    data = [random_datum(rng, 4 + index, width=width) for index, width in enumerate(widths)]
    results = []
    for tokens in (1, 20, 1000):
        model = randomized(base)
        results.append((run(base, model, data, "cross_entropy", tokens), model.gradient))
    expected = [(4,), (5, 5), (6, 2), (7, 1), (8, 5)]
    for result, gradient in results:
        assert expected == [logprobs.shape for logprobs in result.logprobs]
        assert results[0][0].loss_sum == pytest.approx(result.loss_sum)
        torch.testing.assert_close(results[0][1], gradient, rtol=1e-4, atol=1e-5)


def test_the_datum_whose_loss_is_not_finite_is_named(base: BaseModel) -> None:
    rng = np.random.default_rng(10)
    data = [random_datum(rng, length, "importance_sampling") for length in (3, 9, 4)]
    inputs = dict(data[1].loss_fn_inputs)
    inputs["logprobs"] = TensorData([-1000.0] * 9, "float32", [9])
    data[1] = Datum(data[1].model_input, inputs)
    with pytest.raises(EngineError, match=r"data\[1\] has a loss of"):
        run(base, randomized(base), data, "importance_sampling")


def test_without_penalty_stable_reinforce_is_cispo_with_the_recorded_logprobs(
    base: BaseModel,
) -> None:
    tokens, drawn = [5, 6, 7, 8], [20, 21, 22, 23]
    logprobs = np.array([-9.0, -4.0, -0.1, -3.0], np.float32)
    sample = RecordedSample(np.array(tokens), np.array(drawn), logprobs)
    advantages = [0.0, 0.0, 0.0, 1.0, -0.5, 2.0, 0.0]
    everything = [*tokens, *drawn]
    recorded = Datum(
        ModelInput.from_ints(everything[:-1]),
        {"target_tokens": everything[1:], "advantages": advantages},
        [
            PromptProvenanceSpan(sequence_id="q", length=4),
            SampledProvenanceSpan(sequence_id="q", length=3),
        ],
        [
            PromptProvenanceSpan(sequence_id="q", offset=1, length=3),
            SampledProvenanceSpan(sequence_id="q", length=4),
        ],
    )
    plain_inputs = {**recorded.loss_fn_inputs, "logprobs": np.r_[[0.0] * 3, logprobs]}
    plain = Datum(recorded.model_input, plain_inputs)
    ours, theirs = randomized(base), randomized(base)
    limits = Limits(VOCAB_SIZE, 64)
    batches = [
        prepare_batch(
            [recorded],
            "stable_reinforce",
            None,
            limits,
            backward=True,
            find_sample=lambda _: sample,
        ),
        prepare_batch([plain], "cispo", {"clip_high_threshold": 2.0}, limits, backward=True),
    ]
    results = [
        run_batch(base, model.adapter, batch, batch_tokens=64)
        for model, batch in zip((ours, theirs), batches, strict=True)
    ]
    assert results[1].loss_sum == pytest.approx(results[0].loss_sum)
    torch.testing.assert_close(theirs.gradient, ours.gradient)
    assert 1.0 == pass_metrics(batches[0], results[0])["surrogate_stable_reinforce:max"]
    assert "surrogate_stable_reinforce:max" not in pass_metrics(batches[1], results[1])


def custom(
    *, wide: bool = False, loss: str = "loss", metrics: dict[str, Any] | None = None
) -> CustomLoss:
    """Return -(l * x).sum() * scale, with the mean of l as a metric."""
    inputs = {"logprobs": 2 if wide else 1, "x": 2 if wide else 1, "scale": 0}
    nodes: list[dict[str, Any]] = [
        {"op": "placeholder", "name": name, "target": name} for name in inputs
    ]
    calls: list[tuple[str, str, list[Any]]] = [
        ("operator.mul", "product", [{"ref": "logprobs"}, {"ref": "x"}]),
        ("torch.sum", "total", [{"ref": "product"}]),
        ("operator.mul", "scaled", [{"ref": "total"}, {"ref": "scale"}]),
        ("operator.neg", "loss", [{"ref": "scaled"}]),
        ("torch.mean", "mean", [{"ref": "logprobs"}]),
        ("torch.sum", "apart", [{"ref": "x"}]),
        ("torch.log", "undefined", [{"ref": "mean"}]),
    ]
    nodes += [
        {"op": "call_function", "name": name, "target": target, "args": args}
        for target, name, args in calls
    ]
    if metrics is None:
        metrics = {"custom/mean:mean": {"ref": "mean"}, "custom/loss:sum": {"ref": "loss"}}
    returned = [{"ref": loss}, {"dict": metrics}]
    nodes.append({"op": "output", "name": "output", "target": "output", "args": [returned]})
    declared = [{"name": name, "rank": rank} for name, rank in inputs.items()]
    return validate_graph({"nodes": nodes}, declared)


def custom_datum(rng: np.random.Generator, length: int, scale: float, width: int = 0) -> Datum:
    plain = random_datum(rng, length, width=width)
    inputs = {
        "target_tokens": plain.loss_fn_inputs["target_tokens"],
        "x": plain.loss_fn_inputs["weights"],
        "scale": TensorData([scale], "float32", []),
    }
    return Datum(plain.model_input, inputs)


def run_custom(
    base: BaseModel,
    model: TrainedModel,
    loss: CustomLoss,
    data: Sequence[Datum],
    *,
    backward: bool = True,
    tokens: int = 64,
) -> LossResult:
    batch = prepare_custom_batch(data, loss, Limits(VOCAB_SIZE, 64), backward=backward)
    return run_batch(base, model.adapter, batch, batch_tokens=tokens)


@pytest.mark.parametrize("width", [0, 3])
def test_a_custom_loss_has_the_gradient_of_the_named_one_of_its_formula(
    base: BaseModel, width: int
) -> None:
    rng = np.random.default_rng(11)
    data = [custom_datum(rng, length, 2.0, width) for length in (4, 9, 30)]
    named = [
        Datum(
            datum.model_input,
            {
                "target_tokens": datum.loss_fn_inputs["target_tokens"],
                "weights": 2 * datum.loss_fn_inputs["x"].to_numpy(),
            },
        )
        for datum in data
    ]
    ours, theirs = randomized(base), randomized(base)
    result = run_custom(base, ours, custom(wide=width > 0), data)
    expected = run(base, theirs, named, "cross_entropy")
    assert expected.loss_sum == pytest.approx(result.loss_sum, rel=1e-6)
    torch.testing.assert_close(theirs.gradient, ours.gradient, rtol=1e-5, atol=1e-7)
    for one, other in zip(expected.logprobs, result.logprobs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_custom_metrics_are_summed_or_averaged_over_the_datums_in_any_packing(
    base: BaseModel,
) -> None:
    rng = np.random.default_rng(12)
    data = [custom_datum(rng, length, 0.5) for length in (3, 8, 5)]
    for tokens in (1, 1000):
        result = run_custom(base, randomized(base), custom(), data, tokens=tokens)
        means = [float(logprobs.mean()) for logprobs in result.logprobs]
        assert sum(means) / 3 == pytest.approx(result.metrics["custom/mean:mean"])
        assert result.loss_sum == pytest.approx(result.metrics["custom/loss:sum"])


def test_a_custom_loss_without_a_gradient_goes_forward_only(base: BaseModel) -> None:
    data = [custom_datum(np.random.default_rng(13), 4, 1.0)]
    apart = custom(loss="apart")
    run_custom(base, randomized(base), apart, data, backward=False)
    with pytest.raises(EngineError, match=r"data\[0\] has a loss that does not depend on logprobs"):
        run_custom(base, randomized(base), apart, data)


def test_the_datum_whose_custom_loss_is_not_finite_is_named(base: BaseModel) -> None:
    data = [custom_datum(np.random.default_rng(14), 4, 1.0)]
    with pytest.raises(EngineError, match=r"data\[0\] has a loss of nan"):
        run_custom(base, randomized(base), custom(loss="undefined", metrics={}), data)
    metrics = {"custom/a:sum": {"ref": "undefined"}}
    with pytest.raises(EngineError, match=r"data\[0\]: custom loss: metric 'custom/a:sum'"):
        run_custom(base, randomized(base), custom(metrics=metrics), data)


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"x": None}, "loss_fn_inputs lacks 'x'"),
        ({"scale": np.ones(1)}, "has shape (1,), but the loss declares scale with rank 0"),
        ({"target_tokens": np.ones((4, 2), int)}, "declares logprobs with rank 1"),
        ({"target_tokens": None}, "lacks 'target_tokens'"),
    ],
)
def test_a_datum_that_does_not_fit_a_custom_loss_is_refused(
    changes: dict[str, Any], problem: str
) -> None:
    good = custom_datum(np.random.default_rng(15), 4, 1.0)
    inputs = {k: v for k, v in (dict(good.loss_fn_inputs) | changes).items() if v is not None}
    bad = Datum(good.model_input, inputs)
    with pytest.raises(EngineError) as raised:
        prepare_custom_batch([good, bad], custom(), Limits(VOCAB_SIZE, 64), backward=True)
    assert "data[1]" in raised.value.message
    assert problem in raised.value.message
