from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fakes.tiny_model import VOCAB_SIZE, make_tiny_model, random_tokens
from tinker_ray.engine.model.adapter import Adapter, select_targets
from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.model.lora import AdapterSpan, assigned, spans_of, whole_batch
from tinker_ray.types import LoraConfig


def make_adapter(base: BaseModel, rank: int, seed: int, **config: bool) -> Adapter:
    lora = LoraConfig(rank=rank, seed=seed, **config)
    adapter = Adapter.initial(select_targets(base.targets, lora), lora, base.device)
    generator = torch.Generator().manual_seed(seed)
    for _, lora_b in adapter.pairs.values():
        lora_b.copy_(torch.randn(lora_b.shape, generator=generator) * 0.05)
    return adapter


def logits(base: BaseModel, tokens: torch.Tensor, adapter: Adapter | None) -> torch.Tensor:
    with torch.no_grad(), assigned(whole_batch(adapter, tokens.shape[0])):
        hidden = base.run(tokens)
        return (
            base.unembed(hidden.flatten(0, 1))
            if adapter is None
            else _unembed(base, hidden, adapter)
        )


def _unembed(base: BaseModel, hidden: torch.Tensor, adapter: Adapter) -> torch.Tensor:
    flat = hidden.flatten(0, 1)
    with assigned(whole_batch(adapter, flat.shape[0])):
        return base.unembed(flat)


def some_tokens(rows: int, length: int) -> torch.Tensor:
    rng = np.random.default_rng(rows)
    return torch.from_numpy(random_tokens(rng, rows * length).reshape(rows, length))


def test_a_fresh_adapter_changes_nothing(base: BaseModel) -> None:
    config = LoraConfig(rank=8, seed=0)
    adapter = Adapter.initial(base.targets, config, base.device)
    tokens = some_tokens(4, 8)
    assert torch.equal(logits(base, tokens, None), logits(base, tokens, adapter))


def test_the_same_seed_gives_the_same_adapter(base: BaseModel) -> None:
    def initial(seed: int | None) -> torch.Tensor:
        return Adapter.initial(base.targets, LoraConfig(rank=4, seed=seed), base.device).flat

    assert torch.equal(initial(5), initial(5))
    assert not torch.equal(initial(5), initial(6))
    assert not torch.equal(initial(None), initial(None))


def test_a_is_kaiming_uniform_and_b_zero(base: BaseModel) -> None:
    adapter = Adapter.initial(base.targets, LoraConfig(rank=64, seed=0), base.device)
    for target in base.targets:
        lora_a, lora_b = adapter.pairs[target.path]
        bound = target.in_features**-0.5
        assert lora_a.abs().max() <= bound
        assert bound / 3**0.5 == pytest.approx(float(lora_a.std()), rel=0.1)
        assert 0 == int(lora_b.count_nonzero())


@pytest.mark.parametrize(
    "flags, names",
    [
        ({"train_mlp": False, "train_unembed": False}, {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ({"train_attn": False, "train_unembed": False}, {"gate_proj", "up_proj", "down_proj"}),
        ({"train_attn": False, "train_mlp": False}, {"lm_head"}),
    ],
)
def test_flags_choose_the_layers(base: BaseModel, flags: dict[str, bool], names: set[str]) -> None:
    chosen = select_targets(base.targets, LoraConfig(rank=1, **flags))
    assert names == {target.path.rpartition(".")[2] for target in chosen}


def test_deltas_are_those_of_merged_weights(tmp_path: Path) -> None:
    for family in ("llama", "qwen2", "qwen3"):
        base = BaseModel.load(family, make_tiny_model(tmp_path / family, family, tied=False))
        merged = BaseModel.load(family, tmp_path / family)
        adapter = make_adapter(base, 4, 1)
        for path, (lora_a, lora_b) in adapter.pairs.items():
            weight = merged.model.get_submodule(path).weight
            weight.add_(lora_b @ lora_a, alpha=32 / 4)
        tokens = some_tokens(3, 7)
        expected = logits(merged, tokens, None)
        torch.testing.assert_close(logits(base, tokens, adapter), expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_on_a_tied_unembedding_leaves_the_embedding_alone(base: BaseModel) -> None:
    adapter = make_adapter(base, 4, 1, train_attn=False, train_mlp=False)
    tokens = some_tokens(2, 6)
    with torch.no_grad(), assigned(whole_batch(adapter, 2)):
        assert torch.equal(base.run(tokens), base.run(tokens))
        changed = base.run(tokens)
    with torch.no_grad():
        hidden = base.run(tokens)
    assert torch.equal(hidden, changed)
    assert not torch.equal(logits(base, tokens, None), logits(base, tokens, adapter))


def test_a_batch_mixes_adapters_of_different_ranks(base: BaseModel) -> None:
    first, second = make_adapter(base, 2, 1), make_adapter(base, 8, 2, train_mlp=False)
    adapters = [first, first, None, second, None, None, second, second, second, second]
    tokens = some_tokens(len(adapters), 5)
    spans = spans_of(adapters, len(adapters))
    with torch.no_grad(), assigned(spans):
        mixed = base.unembed(base.run(tokens)[:, -1])
    for adapter in (first, second, None):
        alone = logits(base, tokens, adapter).view(len(adapters), 5, VOCAB_SIZE)[:, -1]
        rows = [row for row, item in enumerate(adapters) if item is adapter]
        torch.testing.assert_close(mixed[rows], alone[rows], rtol=1e-5, atol=1e-5)


def test_spans_cover_neighbours_and_widen_to_windows_of_four(base: BaseModel) -> None:
    first, second = make_adapter(base, 2, 1), make_adapter(base, 2, 2)
    spans = spans_of([first, first, None, second], 6)
    assert (AdapterSpan(first, 0, 2, 0, 4), AdapterSpan(second, 3, 4, 2, 6)) == spans
    assert (AdapterSpan(first, 0, 1, 0, 1),) == spans_of([first], 1)
    assert () == spans_of([None, None], 4)


def test_a_thread_has_its_own_assignment(base: BaseModel) -> None:
    tokens = some_tokens(2, 5)
    plain = logits(base, tokens, None)
    seen: list[torch.Tensor] = []
    with assigned(whole_batch(make_adapter(base, 4, 1), 2)):
        thread = threading.Thread(target=lambda: seen.append(logits(base, tokens, None)))
        thread.start()
        thread.join()
    assert torch.equal(plain, seen[0])


def test_spans_can_cover_several_rows_of_each(base: BaseModel) -> None:
    first, second = make_adapter(base, 2, 1), make_adapter(base, 2, 2)
    spans = spans_of([first, first, None, second], 14, [2, 3, 4, 5])
    assert (AdapterSpan(first, 0, 5, 0, 5), AdapterSpan(second, 9, 14, 9, 14)) == spans
