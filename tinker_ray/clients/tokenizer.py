"""Tokenizers by model name, through transformers if it is installed."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHIPPED = {"tinker-ray/tiny-adder": "tinker_ray.engine.tiny_adder"}
"""Base models that come with this package, and the sub-package with their ``model/`` folder."""


def tokenizer_source(name: str) -> str:
    """Return the folder of a shipped model's tokenizer, else the name itself."""
    package = _SHIPPED.get(name)
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return name
    return str(Path(spec.origin).parent / "model")


@functools.lru_cache(maxsize=32)
def load_tokenizer(model_name: str, tokenizer_id: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; cached.

    Args:
        model_name: What the service calls the base model; one that comes with this package is
            loaded from it.
        tokenizer_id: What the service says that its tokenizer is: a name or a folder.

    Raises:
        ConfigurationError: transformers is not installed.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        message = "get_tokenizer needs transformers: pip install 'tinker-ray[engine]'"
        raise ConfigurationError(message) from error
    source = model_name if model_name in _SHIPPED else tokenizer_id or model_name
    tokenizer: PreTrainedTokenizerBase = transformers.AutoTokenizer.from_pretrained(
        tokenizer_source(source)
    )
    return tokenizer
