from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.fakes.tiny_model import random_datum, random_tokens, scored_datum
from tinker_ray.engine.model.adapter_file import load_adapter, load_training, save_adapter
from tinker_ray.engine.training.trainer import Trainer
from tinker_ray.errors import EngineError
from tinker_ray.types import AdamParams, LoraConfig


@pytest.fixture
def trained(trainer: Trainer) -> Trainer:
    """A trainer with model ``m`` after three steps."""
    data = [random_datum(np.random.default_rng(0), 8)]
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    for _ in range(3):
        trainer.forward("m", data, "cross_entropy", None, backward=True)
        trainer.optim_step("m", AdamParams(learning_rate=1e-2))
    return trainer


def test_what_is_saved_loads_bit_for_bit(trained: Trainer, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints" / "one"
    size_bytes = trained.save("m", directory, optimizer=True).result()
    model = trained._models["m"]
    saved = load_training(directory)
    assert saved.optimizer is not None
    assert "tiny" == saved.base_model
    assert (model.adapter.config, model.adapter.targets) == (
        saved.adapter.config,
        saved.adapter.targets,
    )
    assert torch.equal(model.adapter.flat, saved.adapter.flat)
    assert torch.equal(model.optimizer.exp_avg, saved.optimizer.exp_avg)
    assert torch.equal(model.optimizer.exp_avg_sq, saved.optimizer.exp_avg_sq)
    assert 3 == saved.optimizer.num_steps
    assert size_bytes == sum(file.stat().st_size for file in directory.iterdir())
    assert torch.equal(model.adapter.flat, load_adapter(directory).flat)


def test_without_the_optimizer_there_is_none(trained: Trainer, tmp_path: Path) -> None:
    trained.save("m", tmp_path / "one", optimizer=False).result()
    assert load_training(tmp_path / "one").optimizer is None
    assert not (tmp_path / "one" / "optimizer.safetensors").exists()


def test_a_checkpoint_is_written_once(trained: Trainer, tmp_path: Path) -> None:
    trained.save("m", tmp_path / "one", optimizer=False).result()
    with pytest.raises(EngineError, match="exists"):
        trained.save("m", tmp_path / "one", optimizer=False).result()


def test_a_failed_write_leaves_nothing_behind(
    trained: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = trained.snapshot("m").result()

    def refuse(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space left"):
        save_adapter(tmp_path / "one", adapter, base_model="tiny", optimizer=None)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, message",
    [
        ("training_state.json", "no complete checkpoint"),
        ("adapter_model.safetensors", "no complete checkpoint"),
        ("optimizer.safetensors", "no complete checkpoint"),
    ],
)
def test_a_missing_file_is_named(trained: Trainer, tmp_path: Path, name: str, message: str) -> None:
    trained.save("m", tmp_path / "one", optimizer=True).result()
    (tmp_path / "one" / name).unlink()
    with pytest.raises(EngineError, match=message) as raised:
        load_training(tmp_path / "one")
    assert name in raised.value.message


@pytest.mark.parametrize("name", ["training_state.json", "adapter_model.safetensors"])
def test_a_damaged_file_is_the_servers_fault(trained: Trainer, tmp_path: Path, name: str) -> None:
    trained.save("m", tmp_path / "one", optimizer=True).result()
    (tmp_path / "one" / name).write_bytes(b"{}")
    with pytest.raises(EngineError, match="damaged") as raised:
        load_training(tmp_path / "one")
    assert "server" == raised.value.category


def test_peft_loads_what_we_save(trained: Trainer, tmp_path: Path, tiny_model_dir: Path) -> None:
    trained.save("m", tmp_path / "one", optimizer=False).result()
    tokens = random_tokens(np.random.default_rng(1), 12)
    output = trained.forward("m", [scored_datum(tokens)], "cross_entropy", None, backward=False)
    ours = output.result().loss_fn_outputs[0]["logprobs"].to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own, about tied embeddings
        peft = pytest.importorskip("peft")
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        model = peft.PeftModel.from_pretrained(model, tmp_path / "one").eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens)[None]).logits[0, :-1]
    theirs = torch.log_softmax(logits, -1).gather(-1, torch.from_numpy(tokens[1:, None]))[:, 0]
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
