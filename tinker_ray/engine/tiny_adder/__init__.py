"""The base model ``tinker-ray/tiny-adder``: a careless adder for reinforcement learning.

Knows where the shipped Hugging Face folder lies and how it was made; loads neither torch nor
transformers. Invariant: every file of the folder is the output of
``python -m tinker_ray.engine.tiny_adder.train --seed 0``.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

NAME = "tinker-ray/tiny-adder"


def directory() -> Path:
    """Return the shipped Hugging Face folder: config, tokenizer and weights."""
    return Path(str(files(__name__) / "model"))


__all__ = ["NAME", "directory"]
