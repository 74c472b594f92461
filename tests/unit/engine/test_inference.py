from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.fakes.tiny_model import CONTEXT, make_tiny_model, random_tokens
from tinker_ray.engine.model.adapter import Adapter, select_targets
from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.model.inference import (
    FusedInference,
    Inference,
    ModuleInference,
    inference_of,
)
from tinker_ray.engine.model.kv_cache import RowCache
from tinker_ray.engine.model.lora import MINIMUM_ROWS, spans_of
from tinker_ray.engine.model.packed_prompts import PackedPrompts
from tinker_ray.types import LoraConfig

Prompts = list[npt.NDArray[np.int64]]

FAMILIES = ["llama", "qwen2", "qwen3"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    directory = tmp_path_factory.mktemp("model") / str(request.param)
    return BaseModel.load("m", make_tiny_model(directory, request.param, tied=False))


def make_adapter(base: BaseModel, rank: int, seed: int, **flags: bool) -> Adapter:
    config = LoraConfig(rank=rank, seed=seed, **flags)
    adapter = Adapter.initial(select_targets(base.targets, config), config, base.device)
    generator = torch.Generator().manual_seed(seed)
    for _, lora_b in adapter.pairs.values():
        lora_b.copy_(torch.randn(lora_b.shape, generator=generator) * 0.05)
    return adapter


def some_prompts(*lengths: int) -> Prompts:
    rng = np.random.default_rng(0)
    return [random_tokens(rng, length) for length in lengths]


@torch.no_grad()
def prompt_logits(
    inference: Inference, prompts: Prompts, adapters: list[Adapter | None]
) -> torch.Tensor:
    """Logits at every position of the prompts, after one run of them all."""
    states = inference.run_prompts(prompts, adapters, every=True)
    rows = torch.cat(states.every)
    lengths = [len(prompt) for prompt in prompts]
    return inference.unembed(rows, spans_of(adapters, rows.shape[0], lengths))


@torch.no_grad()
def step_logits(
    inference: Inference,
    base: BaseModel,
    prompts: Prompts,
    adapters: list[Adapter | None],
    steps: int = 3,
) -> torch.Tensor:
    """Logits ``(steps + 1, prompts, vocab)`` after the prompts and then after each greedy token."""
    states = inference.run_prompts(prompts, adapters, every=False)
    count = states.last.shape[0]
    cache = RowCache(base.kv_shape, dtype=base.dtype, device=base.device, max_slots=1 << 20)
    cache.fit(count, CONTEXT)
    rows = list(range(len(prompts)))
    cache.insert(rows, states.cache, rows)
    spans = spans_of(adapters, count)
    positions = torch.tensor([len(prompt) for prompt in prompts] + [0] * (count - len(prompts)))
    logits = [inference.unembed(states.last, spans)]
    for _ in range(steps):
        logits.append(inference.step(logits[-1].argmax(dim=-1), positions, cache, spans))
        positions += 1
    return torch.stack(logits)[:, : len(prompts)]


def both(base: BaseModel) -> tuple[FusedInference, ModuleInference]:
    assert base.fused is not None
    return FusedInference(base.fused), ModuleInference(base)


def test_fused_layers_agree_with_the_modules_on_prompts(family: BaseModel) -> None:
    fused, modules = both(family)
    prompts = some_prompts(5, 16, 9, 12, 1)
    first, second = make_adapter(family, 4, 1), make_adapter(family, 2, 2, train_attn=False)
    adapters = [first, first, None, second, second]
    expected = torch.log_softmax(prompt_logits(modules, prompts, adapters), dim=-1)
    actual = torch.log_softmax(prompt_logits(fused, prompts, adapters), dim=-1)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_fused_layers_agree_with_the_modules_step_by_step(family: BaseModel) -> None:
    fused, modules = both(family)
    prompts = some_prompts(20, 17, 31, 32, 29, 18)
    first, second = make_adapter(family, 4, 1), make_adapter(family, 2, 2, train_mlp=False)
    adapters = [None, first, first, second, first, None]
    expected = torch.log_softmax(step_logits(modules, family, prompts, adapters), dim=-1)
    actual = torch.log_softmax(step_logits(fused, family, prompts, adapters), dim=-1)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_bits_of_a_row_do_not_depend_on_its_batch_mates(family: BaseModel) -> None:
    fused, _ = both(family)
    adapters = [make_adapter(family, 4, 1), None, make_adapter(family, 8, 2)]
    prompts = some_prompts(*[3, 16, 7, 11, 1, 9] * 8)
    chosen = [adapters[index % 5 % 3] for index in range(len(prompts))]
    together = step_logits(fused, family, prompts, chosen)
    for index in (0, 1, 2, 3, 4, 17, len(prompts) - 1):
        alone = step_logits(fused, family, [prompts[index]], [chosen[index]])
        assert torch.equal(alone[:, 0], together[:, index])


def test_asking_for_every_position_changes_no_bit_of_the_last(family: BaseModel) -> None:
    fused, _ = both(family)
    prompts = some_prompts(3, 9, 4, 14, 2)
    adapters: list[Adapter | None] = [make_adapter(family, 4, 1)] * 3 + [None] * 2
    with torch.no_grad():
        short = fused.run_prompts(prompts, adapters, every=False)
        long = fused.run_prompts(prompts, adapters, every=True)
    assert () == short.every
    assert [3, 9, 4, 14, 2] == [len(states) for states in long.every]
    assert torch.equal(short.last, long.last)


def test_the_modules_share_their_weights_with_the_fused_layers(family: BaseModel) -> None:
    assert family.fused is not None
    for index, layer in enumerate(family.fused.layers):
        for projection in (layer.qkv, layer.output, layer.gate_up, layer.down):
            memory = projection.weight.untyped_storage().data_ptr()
            for path, (start, stop) in zip(projection.paths, projection.columns, strict=True):
                assert f"model.layers.{index}." in path
                weight = family.model.get_submodule(path).weight
                assert memory == weight.untyped_storage().data_ptr()
                assert torch.equal(projection.weight[start:stop], weight)


def test_a_tied_unembedding_stays_tied(base: BaseModel) -> None:
    assert base.fused is not None
    assert base.fused.embedding.data_ptr() == base.fused.unembedding.weight.data_ptr()
    assert base.model.get_input_embeddings().weight.data_ptr() == base.fused.embedding.data_ptr()


def changed(directory: Path, **config: object) -> BaseModel:
    make_tiny_model(directory)
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return BaseModel.load("m", directory)


def test_scaled_rotary_embeddings_agree(tmp_path: Path) -> None:
    scaled = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    base = changed(tmp_path / "m", rope_parameters=scaled)
    fused, modules = both(base)
    prompts = some_prompts(70, 65)
    expected, actual = (
        step_logits(inference, base, prompts, [None, None]) for inference in (modules, fused)
    )
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
        {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None},
    ],
)
def test_other_layouts_run_through_the_modules(tmp_path: Path, config: dict[str, object]) -> None:
    base = changed(tmp_path / "m", **config)
    assert base.fused is None
    inference = inference_of(base)
    prompts = some_prompts(4, 6)
    logits = step_logits(inference, base, prompts, [None, None])
    ids = torch.from_numpy(prompts[1])[None]
    with torch.no_grad():
        expected = base.unembed(base.run(ids)[0, -1:])
    torch.testing.assert_close(logits[0, 1:], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("lengths", [[1], [2, 3], [16], [5, 16, 1], [17, 32], [32, 32]])
def test_packed_prompts_go_to_a_padded_batch_and_back(lengths: list[int]) -> None:
    prompts = some_prompts(*lengths)
    packed = PackedPrompts(prompts, torch.device("cpu"))
    assert max(MINIMUM_ROWS, sum(lengths)) == packed.num_rows
    padded = packed.pad(packed.tokens)
    assert (len(lengths), -(-max(lengths) // 16) * 16) == tuple(padded.shape)
    for row, prompt in zip(padded, prompts, strict=True):
        assert prompt.tolist() == row[: len(prompt)].tolist()
        assert {prompt[-1]} >= set(row[len(prompt) :].tolist())
    parts = packed.split(packed.unpad(padded))
    assert [prompt.tolist() for prompt in prompts] == [part.tolist() for part in parts]
    positions = packed.split(packed.positions)
    assert [list(range(length)) for length in lengths] == [part.tolist() for part in positions]
    last = packed.tokens[packed.last_rows].tolist()
    assert [prompt[-1] for prompt in prompts] == last[: len(prompts)]
    assert len(last) >= MINIMUM_ROWS
