"""The page that describes an adapter where it is published: a README with the hub's header."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PATH = re.compile(r"tinker://[^\s`\"']+")


@dataclass(frozen=True, slots=True)
class Adapter:
    """What the page tells.

    Attributes:
        tinker_path: Where it comes from.
        base_model: What it adapts.
        rank: Of its matrices.
        trained: Parts of the model that it adapts.
    """

    tinker_path: str
    base_model: str
    rank: int | None = None
    trained: tuple[str, ...] = ()


def render(adapter: Adapter, repo_id: str) -> str:
    """Write the page."""
    facts = [f"- Base model: {adapter.base_model}", f"- Checkpoint: `{adapter.tinker_path}`"]
    if adapter.rank is not None:
        facts.append(f"- LoRA rank: {adapter.rank}")
    if adapter.trained:
        facts.append(f"- Adapted: {', '.join(adapter.trained)}")
    header = [
        f"base_model: {adapter.base_model}",
        "library_name: peft",
        "tags:",
        "- tinker",
        "- peft",
        "- lora",
        f"- base_model:adapter:{adapter.base_model}",
        f"tinker_path: {adapter.tinker_path}",
    ]
    usage = [
        "```python",
        "from peft import AutoPeftModelForCausalLM",
        "",
        f'model = AutoPeftModelForCausalLM.from_pretrained("{repo_id}")',
        "```",
    ]
    parts = [
        ["---", *header, "---"],
        ["# LoRA adapter trained with Tinker"],
        facts,
        ["## Use"],
        usage,
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def source_of(page: str) -> str | None:
    """Return the checkpoint that a page says it describes; None if it names none."""
    found = _PATH.search(page)
    return None if found is None else found.group(0)
