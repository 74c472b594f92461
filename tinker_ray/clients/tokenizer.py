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
def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer by model name or folder; cached.

    Raises:
        ConfigurationError: transformers is not installed.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        message = "get_tokenizer needs transformers: pip install 'tinker-ray[engine]'"
        raise ConfigurationError(message) from error
    tokenizer: PreTrainedTokenizerBase = transformers.AutoTokenizer.from_pretrained(
        tokenizer_source(name)
    )
    return tokenizer
