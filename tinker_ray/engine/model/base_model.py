"""A frozen causal language model from a local Hugging Face folder, shared by trainer and sampler.

Runs the transformers class of the folder's config with LoRA layers in place of its linear ones.
Knows nothing of jobs, threads or caches beyond passing a cache through. On a GPU ``device`` and
``dtype`` apply as well; only float32 on the CPU is exercised by the tests.

Invariant: after loading, nothing writes to the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tinker_ray.engine.model.attention import ATTENTION, register
from tinker_ray.engine.model.fused_layers import FusedLayers, fuse
from tinker_ray.engine.model.kv_cache import KeyValueShape
from tinker_ray.engine.model.lora import install
from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from tinker_ray.engine.model.adapter import LoraTarget
from tinker_ray.engine.model.kv_cache import KeyValueSink

_MANY_PARAMETERS = 30_000_000


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A loaded base model.

    Attributes:
        name: What clients call it.
        model: The transformers model, its linear layers replaced by LoRA ones.
        tokenizer: The folder's own tokenizer, None if the folder has none.
        targets: The layers that an adapter can change.
        context_length: Most tokens of prompt and answer together.
        vocab_size: Number of token ids; ids are below it.
        eos_token_ids: Tokens that end an answer.
        num_parameters: Numbers in the base weights, a tied weight counted once.
        fused: The same weights laid out for the sampler, if the model's layout is a known one.
    """

    name: str
    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase | None = field(repr=False)
    targets: tuple[LoraTarget, ...] = field(repr=False)
    context_length: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    num_parameters: int
    fused: FusedLayers | None = field(repr=False)

    @classmethod
    def load(
        cls,
        name: str,
        directory: Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> BaseModel:
        """Load a model from ``directory``; nothing is fetched.

        Raises:
            EngineError: The folder is not a causal language model that the engine can run.
        """
        register()
        try:
            config = AutoConfig.from_pretrained(directory, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                directory,
                config=config,
                local_files_only=True,
                dtype=dtype,
                attn_implementation=ATTENTION,
            )
        except (OSError, ValueError, KeyError) as error:
            message = f"cannot load the base model {name!r} from {directory}: {error}"
            raise EngineError(message, category="user") from error
        _check_attention(name, config)
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
        targets = install(model.eval().to(device))
        tokenizer = _load_tokenizer(directory)
        return cls(
            name=name,
            model=model,
            tokenizer=tokenizer,
            targets=targets,
            context_length=int(config.max_position_embeddings),
            vocab_size=int(config.vocab_size),
            eos_token_ids=_eos_token_ids(model, tokenizer),
            num_parameters=num_parameters,
            fused=fuse(model),
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are made of."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def kv_shape(self) -> KeyValueShape:
        """Shape of the keys and values that the model makes."""
        config = self.model.config
        head_dim = getattr(config, "head_dim", None)
        head_dim = head_dim or config.hidden_size // config.num_attention_heads
        return KeyValueShape(config.num_hidden_layers, config.num_key_value_heads, head_dim)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token over all layers."""
        return 2 * math.prod(self.kv_shape) * self.dtype.itemsize

    @property
    def num_threads(self) -> int:
        """Threads for one operation: one for small models, whose operations are too short to split.

        With one thread the numbers of a row do not depend on its batch mates. Trainer and sampler
        run at the same time, so a larger model's operations get half of the cores.
        """
        if self.num_parameters < _MANY_PARAMETERS:
            return 1
        return max(1, torch.get_num_threads() // 2)

    @property
    def num_lanes(self) -> int:
        """Batches of rows to draw from at once, each with a thread of its own.

        Small models have a second one if there is a core for it: two threads with operations of
        their own get more out of two cores than two threads in every operation.
        """
        return 2 if self.num_parameters < _MANY_PARAMETERS and torch.get_num_threads() > 1 else 1

    def run(
        self,
        tokens_BT: torch.Tensor,
        positions_BT: torch.Tensor | None = None,
        *,
        cache: KeyValueSink | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the last hidden states ``(B, T, hidden)``; without a mask attention is causal."""
        output = self.model.base_model(
            input_ids=tokens_BT,
            attention_mask=mask,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def unembed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map hidden states ``(N, hidden)`` to float32 logits ``(N, vocab)``."""
        unembedding: Any = self.model.get_output_embeddings()
        logits: torch.Tensor = unembedding(hidden)
        return logits.float()


def _check_attention(name: str, config: PretrainedConfig) -> None:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        message = (
            f"base model {name!r} has {sorted(kinds)} layers: only full attention is supported"
        )
        raise EngineError(message, category="user")


def _load_tokenizer(directory: Path) -> PreTrainedTokenizerBase | None:
    if not any(directory.glob("tokenizer*")):
        return None
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        directory, local_files_only=True
    )
    return tokenizer


def _eos_token_ids(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[int, ...]:
    generation = getattr(model, "generation_config", None)
    candidates = [
        getattr(generation, "eos_token_id", None),
        model.config.eos_token_id,
        getattr(tokenizer, "eos_token_id", None),
    ]
    for candidate in candidates:
        if candidate is not None:
            return tuple(candidate) if isinstance(candidate, list) else (int(candidate),)
    return ()
