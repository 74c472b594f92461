"""Tokenizers by model name, through transformers if it is installed."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHIPPED = {"tinker-ray/tiny-adder": "tinker_ray.engine.tiny_adder"}
"""Base models that come with this package, and the sub-package with their ``model/`` folder."""
_LLAMA_3 = "meta-llama/Llama-3"
_UNGATED_LLAMA_3 = "thinkingmachineslabinc/meta-llama-3-instruct-tokenizer"
_OWN_MODELS = ("TML/", "thinkingmachines/")
"""Models whose tokenizers are a package of their own."""
_PINNED = {
    "moonshotai/Kimi-K2-Thinking": "612681931a8c906ddb349f8ad0f582cb552189cd",
    "moonshotai/Kimi-K2.5": "4d01dfe0332d63057c186e0b262165819efb6611",
    "moonshotai/Kimi-K2.6": "b5aabbfb20227ed42becbf5541dbffd213942c58",
    "moonshotai/Kimi-K3": "f831ab66814297da540d832a5235f8e904f29d06",
}
"""Tokenizers that are code, and the revisions of it that may run here: no other code may."""
_SAME_AS = {"moonshotai/Kimi-K2.5-Text-Only": "moonshotai/Kimi-K2.5"}


class TokenizerSource(NamedTuple):
    """Where a tokenizer is.

    Attributes:
        name: Of the repository, or a folder.
        revision: The one whose code may run here; None if it needs no code.
    """

    name: str
    revision: str | None = None


def tokenizer_source(model_name: str, tokenizer_id: str | None = None) -> TokenizerSource:
    """Say where the tokenizer of a model is.

    Args:
        model_name: What the service calls the base model; one that comes with this package has its
            tokenizer there. A variant, ``<organization>/<model>/<variant>``, has its model's.
        tokenizer_id: What the service says that its tokenizer is: a name or a folder.
    """
    shipped = _folder(_SHIPPED.get(model_name))
    if shipped is not None:
        return TokenizerSource(shipped)
    if tokenizer_id is not None and Path(tokenizer_id).is_dir():
        return TokenizerSource(tokenizer_id)
    name = (tokenizer_id or _by_convention(model_name)).partition(":")[0]
    name = _SAME_AS.get(name, name)
    return TokenizerSource(name, _PINNED.get(name))


@functools.lru_cache(maxsize=32)
def load_tokenizer(model_name: str, tokenizer_id: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; cached.

    Args:
        model_name: What the service calls the base model.
        tokenizer_id: What the service says that its tokenizer is.

    Raises:
        ConfigurationError: The package that it needs is not installed.
        OSError: There is no such tokenizer, or it cannot be had from here.
    """
    source = tokenizer_source(model_name, tokenizer_id)
    if source.name.startswith(_OWN_MODELS):
        own = _own_tokenizer(source.name)
        if own is not None:
            return own
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        message = "get_tokenizer needs transformers: pip install 'tinker-ray[engine]'"
        raise ConfigurationError(message) from error
    options: dict[str, Any] = {}
    if source.revision is not None:
        options = {"trust_remote_code": True, "revision": source.revision}
    # To choose a class by the model's takes torch, some seconds; ours is known.
    is_ours = model_name in _SHIPPED
    kind = transformers.PreTrainedTokenizerFast if is_ours else transformers.AutoTokenizer
    tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(source.name, **options)
    return tokenizer


def _folder(package: str | None) -> str | None:
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    return str(Path(spec.origin).parent / "model")


def _by_convention(model_name: str) -> str:
    name = model_name.partition(":")[0]
    if name.startswith(_LLAMA_3):
        return _UNGATED_LLAMA_3  # theirs needs a licence to be accepted
    parts = name.split("/")
    return "/".join(parts[:2]) if len(parts) == 3 else name  # noqa: PLR2004 - with a variant


def _own_tokenizer(name: str) -> PreTrainedTokenizerBase | None:
    try:
        tokenizers = importlib.import_module("tml_tokenizers.tinker_tokenizers")
    except ImportError as error:
        message = (
            f"the tokenizer of {name} is in the package tml_tokenizers, which is not installed: "
            "install it, or render prompts with the package tml-renderers instead"
        )
        raise ConfigurationError(message) from error
    tokenizer: PreTrainedTokenizerBase | None = tokenizers.get_tinker_tokenizer(name)
    return tokenizer
