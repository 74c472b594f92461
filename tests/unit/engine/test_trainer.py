from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.fakes.tiny_model import random_datum
from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.training.trainer import Trainer
from tinker_ray.errors import EngineError
from tinker_ray.types import AdamParams, Datum, ForwardBackwardOutput, LoraConfig

STEP = AdamParams(learning_rate=1e-2)


def make_data(seed: int = 0, loss_fn: str = "cross_entropy") -> list[Datum]:
    rng = np.random.default_rng(seed)
    return [random_datum(rng, length, loss_fn) for length in (3, 12, 7, 12, 1)]


def backward(trainer: Trainer, model_id: str, data: list[Datum]) -> ForwardBackwardOutput:
    return trainer.forward(model_id, data, "cross_entropy", None, backward=True).result()


def losses(trainer: Trainer, model_id: str, num_steps: int, seed: int = 0) -> list[float]:
    result: list[float] = []
    for _ in range(num_steps):
        result.append(backward(trainer, model_id, make_data(seed)).metrics["loss:sum"])
        trainer.optim_step(model_id, STEP).result()
    return result


def gradient(trainer: Trainer, model_id: str) -> torch.Tensor:
    return trainer._models[model_id].gradient.clone()


def test_training_lowers_the_loss(trainer: Trainer) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    values = losses(trainer, "m", 8)
    assert values[-1] < values[0]


def test_outputs_come_in_request_order_one_logprob_per_target(trainer: Trainer) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    data = make_data()
    output = trainer.forward("m", data, "cross_entropy", None, backward=False).result()
    assert "TorchLossReturn" == output.loss_fn_output_type
    assert [3, 12, 7, 12, 1] == [len(item["logprobs"].data) for item in output.loss_fn_outputs]
    for datum, item in zip(data, output.loss_fn_outputs, strict=True):
        alone = trainer.forward("m", [datum], "cross_entropy", None, backward=False).result()
        expected = alone.loss_fn_outputs[0]["logprobs"].to_numpy()
        np.testing.assert_allclose(expected, item["logprobs"].to_numpy(), atol=1e-5)
    total = sum(
        float((-datum.loss_fn_inputs["weights"].to_numpy() * item["logprobs"].to_numpy()).sum())
        for datum, item in zip(data, output.loss_fn_outputs, strict=True)
    )
    assert total == pytest.approx(output.metrics["loss:sum"], rel=1e-5)
    assert 35.0 == output.metrics["tokens:sum"]


def test_metric_names_have_exactly_one_colon(trainer: Trainer) -> None:
    trainer.create("m", LoraConfig(rank=2, seed=0)).result()
    data = make_data(loss_fn="ppo")
    metrics = trainer.forward("m", data, "ppo", None, backward=True).result().metrics
    metrics |= trainer.optim_step("m", STEP).result()
    assert {1} == {name.count(":") for name in metrics}
    expected = {"loss:sum", "tokens:sum", "ratio:mean", "ratio:max", "sampler_kl:mean"}
    assert {*expected, "clip_fraction:mean", "grad_norm:mean"} == set(metrics)


def test_gradients_add_up_until_the_step(trainer: Trainer) -> None:
    trainer.create("together", LoraConfig(rank=4, seed=0)).result()
    trainer.create("apart", LoraConfig(rank=4, seed=0)).result()
    data = make_data()
    backward(trainer, "together", data)
    backward(trainer, "apart", data[:2])
    backward(trainer, "apart", data[2:])
    torch.testing.assert_close(
        gradient(trainer, "together"), gradient(trainer, "apart"), rtol=1e-4, atol=1e-5
    )
    trainer.optim_step("apart", STEP).result()
    assert 0 == int(gradient(trainer, "apart").count_nonzero())


def test_forward_leaves_no_gradient(trainer: Trainer) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    trainer.forward("m", make_data(), "cross_entropy", None, backward=False).result()
    assert 0 == int(gradient(trainer, "m").count_nonzero())


def test_micro_batches_change_results_only_by_rounding(base: BaseModel) -> None:
    outputs: list[tuple[ForwardBackwardOutput, torch.Tensor]] = []
    for batch_tokens in (1, 24, 10_000):
        trainer = Trainer(base, batch_tokens=batch_tokens)
        trainer.create("m", LoraConfig(rank=4, seed=0)).result()
        outputs.append((backward(trainer, "m", make_data()), gradient(trainer, "m")))
        trainer.close()
    for output, summed in outputs[1:]:
        assert outputs[0][0].metrics["loss:sum"] == pytest.approx(output.metrics["loss:sum"])
        torch.testing.assert_close(outputs[0][1], summed, rtol=1e-4, atol=1e-5)


def test_the_same_operations_give_the_same_numbers(base: BaseModel) -> None:
    runs: list[list[float]] = []
    for _ in range(2):
        trainer = Trainer(base)
        trainer.create("m", LoraConfig(rank=4, seed=3)).result()
        runs.append(losses(trainer, "m", 4))
        trainer.close()
    assert runs[0] == runs[1]


def test_two_models_trained_at_once_do_not_disturb_each_other(trainer: Trainer) -> None:
    def create(name: str) -> None:
        trainer.create(f"{name}-a", LoraConfig(rank=2, seed=1)).result()
        trainer.create(f"{name}-b", LoraConfig(rank=8, seed=2, train_mlp=False)).result()

    create("alone")
    alone = (losses(trainer, "alone-a", 4, 1), losses(trainer, "alone-b", 4, 2))
    create("at-once")
    together: dict[str, list[float]] = {}

    def train(name: str, seed: int) -> None:
        together[name] = losses(trainer, f"at-once-{name}", 4, seed)

    threads = [threading.Thread(target=train, args=item) for item in (("a", 1), ("b", 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alone == (together["a"], together["b"])


def test_a_step_without_gradients_keeps_fresh_weights(trainer: Trainer) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    before = trainer.snapshot("m").result()
    assert {"grad_norm:mean": 0.0} == trainer.optim_step("m", STEP).result()
    assert torch.equal(before.flat, trainer.snapshot("m").result().flat)


def test_a_refused_batch_leaves_gradients_as_they_were(trainer: Trainer) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    backward(trainer, "m", make_data())
    before = gradient(trainer, "m")
    broken = [*make_data(), Datum(make_data()[0].model_input)]
    with pytest.raises(EngineError, match=r"data\[5\].loss_fn_inputs lacks 'target_tokens'"):
        backward(trainer, "m", broken)
    assert torch.equal(before, gradient(trainer, "m"))


def test_a_gradient_that_is_not_finite_is_refused_and_forgotten(trainer: Trainer) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    trainer._models["m"].gradient.fill_(float("nan"))
    before = trainer.snapshot("m").result()
    with pytest.raises(EngineError, match="not finite"):
        trainer.optim_step("m", STEP).result()
    assert torch.equal(before.flat, trainer.snapshot("m").result().flat)
    assert 0 == int(gradient(trainer, "m").count_nonzero())


def test_a_restored_state_goes_on_as_if_uninterrupted(trainer: Trainer, tmp_path: Path) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    losses(trainer, "m", 3)
    trainer.save("m", tmp_path / "state", optimizer=True).result()
    trainer.create("restored", LoraConfig(rank=4, seed=9)).result()
    trainer.load("restored", tmp_path / "state", optimizer=True).result()
    assert losses(trainer, "m", 3) == losses(trainer, "restored", 3)


def test_restored_without_optimizer_the_weights_are_equal_and_it_is_fresh(
    trainer: Trainer, tmp_path: Path
) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    losses(trainer, "m", 3)
    trainer.save("m", tmp_path / "state", optimizer=True).result()
    trainer.create("restored", LoraConfig(rank=4, seed=9)).result()
    trainer.load("restored", tmp_path / "state", optimizer=False).result()
    model = trainer._models["restored"]
    assert torch.equal(trainer.snapshot("m").result().flat, model.adapter.flat)
    assert 0 == model.optimizer.num_steps
    assert 0 == int(model.optimizer.exp_avg.count_nonzero())


def test_loading_drops_gradients(trainer: Trainer, tmp_path: Path) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    trainer.save("m", tmp_path / "state", optimizer=True).result()
    backward(trainer, "m", make_data())
    trainer.load("m", tmp_path / "state", optimizer=True).result()
    assert 0 == int(gradient(trainer, "m").count_nonzero())


def test_a_checkpoint_of_another_shape_is_refused(trainer: Trainer, tmp_path: Path) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    trainer.save("m", tmp_path / "state", optimizer=False).result()
    trainer.create("wider", LoraConfig(rank=8, seed=0)).result()
    with pytest.raises(EngineError, match="another lora_config"):
        trainer.load("wider", tmp_path / "state", optimizer=False).result()
    with pytest.raises(EngineError, match="no optimizer state"):
        trainer.load("m", tmp_path / "state", optimizer=True).result()


def test_a_snapshot_does_not_follow_later_steps(trainer: Trainer) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    snapshot = trainer.snapshot("m").result()
    before = snapshot.flat.clone()
    losses(trainer, "m", 2)
    assert torch.equal(before, snapshot.flat)
    assert not torch.equal(before, trainer.snapshot("m").result().flat)


def test_wrong_calls_are_the_users_fault(trainer: Trainer) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    failures: list[Future[Any]] = [
        trainer.create("m", LoraConfig(rank=4)),
        trainer.create(
            "n", LoraConfig(rank=4, train_attn=False, train_mlp=False, train_unembed=False)
        ),
        trainer.optim_step("unknown", STEP),
        trainer.forward("m", make_data(), "guess", None, backward=True),
    ]
    for failure in failures:
        error = failure.exception()
        assert isinstance(error, EngineError)
        assert "user" == error.category


def test_an_unloaded_model_is_unknown(trainer: Trainer) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    trainer.unload("m").result()
    with pytest.raises(EngineError, match="'m' is unknown"):
        trainer.optim_step("m", STEP).result()
    trainer.unload("m").result()


def test_a_closed_trainer_answers_everything(base: BaseModel) -> None:
    trainer = Trainer(base)
    trainer.close()
    trainer.close()
    with pytest.raises(EngineError, match="closed"):
        trainer.create("m", LoraConfig(rank=4)).result()
