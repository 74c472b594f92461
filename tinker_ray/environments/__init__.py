"""Environments: in words instead of tokens, with tools, and those of other libraries.

What an environment is stands in :mod:`tinker_ray.rollouts`; here are some of our own and what
helps to write them. Knows neither Ray nor HTTP. Invariant: what travels to a worker pickles.
"""

from tinker_ray.environments.dialogue import Dialogue, Tokenizer
from tinker_ray.environments.text import TextEnv, TextEpisode, TextGroup, Turn, episode_of

__all__ = [
    "Dialogue",
    "TextEnv",
    "TextEpisode",
    "TextGroup",
    "Tokenizer",
    "Turn",
    "episode_of",
]
