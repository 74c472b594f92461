"""Tokens per second: the engine's sampler next to transformers' ``generate``, in one run.

    python tests/bench/bench_engine_sampling.py [--model DIR] [--out FILE]

The same prompts, batched and one by one, in turns so that a busy machine is busy for all. Without
``--model`` a Llama of 0.9 million random parameters is made on the spot. ``generate`` has torch's
default number of threads, the sampler its own choice of lanes, unless a contender says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tinker_ray.engine.model.adapter import Adapter
from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.sampling.sampler import SampleJob, Sampler
from tinker_ray.types import LoraConfig, SamplingParams

NUM_PROMPTS = 256
NUM_ALONE = 16
MAX_TOKENS = 32


def make_model(directory: Path) -> None:
    """Write a small Llama with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(directory)


def sample(sampler: Sampler, prompts: list[np.ndarray], adapter: Adapter | None) -> int:
    """Draw from all prompts at once; return the number of tokens."""
    params = SamplingParams(max_tokens=MAX_TOKENS, stop=[])
    futures = [sampler.submit(SampleJob(prompt, adapter, params)) for prompt in prompts]
    return sum(len(future.result().sequences[0].tokens_np) for future in futures)


def generate(model: LlamaForCausalLM, prompts: list[np.ndarray]) -> int:
    """Let transformers draw from all prompts in one left-padded batch; return the tokens."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, longest - len(prompt) :] = 1
    output = model.generate(
        ids,
        attention_mask=mask,
        do_sample=True,
        top_k=0,
        max_new_tokens=MAX_TOKENS,
        eos_token_id=None,
        pad_token_id=0,
    )
    return int(output[:, longest:].numel())


def with_threads(num_threads: int, draw: Callable[[], int]) -> int:
    """Draw with another number of threads than torch's default."""
    default = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        return draw()
    finally:
        torch.set_num_threads(default)


def tokens_per_s(draw: Callable[[], int]) -> tuple[float, float]:
    """Time one draw; return tokens per second and per second of the process's CPU."""
    start, cpu_start = time.perf_counter(), time.process_time()
    num_tokens = draw()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return num_tokens / seconds, num_tokens / cpu_seconds


def median(values: dict[str, list[tuple[float, float]]], column: int) -> dict[str, float]:
    """Return the median of one column of each contender's values."""
    return {
        name: round(statistics.median(item[column] for item in items), 1)
        for name, items in values.items()
    }


def run(directory: Path, rounds: int, num_prompts: int = NUM_PROMPTS) -> dict[str, object]:
    """Measure all contenders in turns; return medians and all values, in tokens per second."""
    base = BaseModel.load("bench", directory)
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    adapter = Adapter.initial(base.targets, LoraConfig(rank=16, seed=0), base.device)
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 24, num_prompts)
    prompts = [rng.integers(3, base.vocab_size, length) for length in lengths]
    sampler, one_lane = Sampler(base), Sampler(base, num_lanes=1)
    contenders: dict[str, Callable[[], int]] = {
        "engine": lambda: sample(sampler, prompts, None),
        "engine_one_lane": lambda: sample(one_lane, prompts, None),
        "engine_with_adapter": lambda: sample(sampler, prompts, adapter),
        "generate_batched": lambda: generate(model, prompts),
        "generate_batched_one_thread": lambda: with_threads(1, lambda: generate(model, prompts)),
        "engine_one_by_one": lambda: sum(
            sample(sampler, [prompt], None) for prompt in prompts[:NUM_ALONE]
        ),
        "generate_one_by_one": lambda: sum(
            generate(model, [prompt]) for prompt in prompts[:NUM_ALONE]
        ),
    }
    values: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for round_number in range(rounds + 1):
        for name, draw in contenders.items():
            value = tokens_per_s(draw)
            if round_number:  # the first round warms up
                values[name].append(value)
    sampler.close()
    one_lane.close()
    return {
        "what": f"{num_prompts} prompts of 8 to 23 tokens, {MAX_TOKENS} tokens each, tokens/s",
        "num_parameters": base.num_parameters,
        "threads": {
            "engine": base.num_threads * base.num_lanes,
            "generate": torch.get_num_threads(),
        },
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "load_average": os.getloadavg(),
        "median": median(values, 0),
        "median_per_cpu_s": median(values, 1),
        "rounds": {name: [round(wall, 1) for wall, _ in items] for name, items in values.items()},
    }


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a local Hugging Face folder")
    parser.add_argument("--out", type=Path, help="where to write the JSON besides the terminal")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = arguments.model or Path(scratch)
        if arguments.model is None:
            make_model(directory)
        result = json.dumps(run(directory, arguments.rounds), indent=2)
    print(result)  # noqa: T201 - a script
    if arguments.out is not None:
        arguments.out.write_text(result + "\n")


if __name__ == "__main__":
    main()
