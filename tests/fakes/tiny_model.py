"""Tiny causal language models with random weights and a character tokenizer, as local folders."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from tinker_ray.types import Datum, ModelInput

FAMILIES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
SPECIAL = ("<pad>", "<bos>", "<eos>")
CHARACTERS = string.ascii_letters + string.digits + " .,!?+-*/="
VOCAB_SIZE = len(SPECIAL) + len(CHARACTERS)
EOS = 2
CONTEXT = 96


def make_tiny_model(directory: Path, family: str = "llama", *, tied: bool = True) -> Path:
    """Write a model of two layers; the same family gives the same weights."""
    torch.manual_seed(0)
    config = FAMILIES[family](
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2 if family != "llama" else 4,
        head_dim=16 if family == "qwen3" else 8,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied,
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    _tokenizer().save_pretrained(directory)
    return directory


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))  # noqa: S106 - a token
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    pad, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos
    )


def random_tokens(rng: np.random.Generator, length: int) -> npt.NDArray[np.int64]:
    """Draw tokens that are not special."""
    return rng.integers(len(SPECIAL), VOCAB_SIZE, length)


def random_datum(
    rng: np.random.Generator, length: int, loss_fn: str = "cross_entropy", width: int = 0
) -> Datum:
    """Make a datum with plausible inputs for a loss; with a width, of that many targets each."""
    tokens = random_tokens(rng, length + 1)
    shape = (length, width) if width else (length,)
    targets = rng.integers(len(SPECIAL), VOCAB_SIZE, shape) if width else tokens[1:]
    inputs: dict[str, npt.NDArray[np.generic]] = {"target_tokens": targets}
    if loss_fn == "cross_entropy":
        inputs["weights"] = rng.uniform(0, 2, shape).astype(np.float32)
    else:
        inputs["logprobs"] = rng.uniform(-5, -3, shape).astype(np.float32)
        inputs["advantages"] = rng.normal(0, 1, shape).astype(np.float32)
    if loss_fn == "gspo":
        inputs["sequence_ratio_mask"] = (np.arange(length) >= length // 2).astype(np.float32)
    return Datum(ModelInput.from_ints(tokens[:-1]), inputs)


def scored_datum(tokens: npt.NDArray[np.integer]) -> Datum:
    """Make a datum whose logprobs are those of ``tokens[1:]``, each after what precedes it."""
    tokens = tokens.astype(np.int64)
    weights = np.ones(len(tokens) - 1, np.float32)
    return Datum(
        ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:], "weights": weights}
    )
