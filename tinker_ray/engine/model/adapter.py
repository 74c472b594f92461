"""The tensors of one LoRA adapter, apart from the model that they change.

All A and B matrices of an adapter are views of one flat tensor, so that an optimizer step, a copy
or a norm is one operation. Knows nothing of files, of training or of sampling.

Invariant: the tensors of an adapter that a sampler holds are never written to.

Source: https://arxiv.org/abs/2106.09685
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tinker_ray.types import LoraConfig

LORA_ALPHA = 32.0
"""Fixed, whatever the rank, as the learning rates in Tinker's documentation assume."""

TargetKind = Literal["attn", "mlp", "unembed"]


@dataclass(frozen=True)
class LoraTarget:
    """A linear layer that can carry an adapter.

    Attributes:
        path: The layer's dotted path in the model, such as ``model.layers.0.self_attn.q_proj``.
        kind: The part of the model that it belongs to.
        in_features: Width of its input.
        out_features: Width of its output.
    """

    path: str
    kind: TargetKind
    in_features: int
    out_features: int


class LoraStack(NamedTuple):
    """The matrices of layers that read the same input.

    Attributes:
        lora_a: The A of each changed layer below each other, ``(layers * rank, in_features)``.
        parts: Which layer each one is, and its B.
    """

    lora_a: torch.Tensor
    parts: tuple[tuple[int, torch.Tensor], ...]


@dataclass(frozen=True, eq=False)
class Adapter:
    """Low-rank changes to some layers of a base model: ``y += scale * B (A x)``.

    Attributes:
        config: Rank, and which kinds of layers are changed.
        targets: The changed layers, in the order of ``flat``.
        flat: Every A and B, one after the other, 1-D.
        pairs: Path of a layer to its A ``(rank, in_features)`` and B ``(out_features, rank)``,
            views of ``flat``.
    """

    config: LoraConfig
    targets: tuple[LoraTarget, ...] = field(repr=False)
    flat: torch.Tensor = field(repr=False)
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(repr=False)
    _stacks: dict[tuple[str, ...], LoraStack | None] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def scale(self) -> float:
        """The factor of every delta, alpha / rank."""
        return LORA_ALPHA / self.config.rank

    @classmethod
    def over(cls, flat: torch.Tensor, targets: Sequence[LoraTarget], config: LoraConfig) -> Adapter:
        """Make an adapter whose matrices are views of ``flat``."""
        return cls(config, tuple(targets), flat, _views(flat, targets, config.rank))

    @classmethod
    def initial(
        cls, targets: Sequence[LoraTarget], config: LoraConfig, device: torch.device
    ) -> Adapter:
        """Draw A from a Kaiming-uniform distribution and set B to zero: nothing changes yet.

        The same ``config.seed`` gives the same tensors; without one they are drawn at random.
        """
        flat = torch.zeros(num_elements(targets, config.rank), dtype=torch.float32)
        adapter = cls.over(flat, targets, config)
        generator = torch.Generator()
        seed = secrets.randbits(63) if config.seed is None else config.seed
        generator.manual_seed(seed % 2**63)
        for lora_a, _ in adapter.pairs.values():
            torch.nn.init.kaiming_uniform_(lora_a, a=math.sqrt(5), generator=generator)
        return cls.over(flat.to(device), targets, config)

    def stack(self, paths: tuple[str, ...]) -> LoraStack | None:
        """Return the matrices of layers with one input, None if none of them is changed.

        Kept once made: only for adapters that a sampler holds, which nothing writes to.
        """
        try:
            return self._stacks[paths]
        except KeyError:
            found = [
                (index, self.pairs[path]) for index, path in enumerate(paths) if path in self.pairs
            ]
            stack = None
            if found:
                above = [lora_a for _, (lora_a, _) in found]
                lora_a = above[0] if len(above) == 1 else torch.cat(above)
                stack = LoraStack(lora_a, tuple((index, lora_b) for index, (_, lora_b) in found))
            self._stacks[paths] = stack
            return stack

    def copy(self) -> Adapter:
        """Return an adapter with tensors of its own and no gradients."""
        return Adapter.over(self.flat.detach().clone(), self.targets, self.config)


def num_elements(targets: Iterable[LoraTarget], rank: int) -> int:
    """Count the numbers in an adapter of ``rank`` over ``targets``."""
    return sum(rank * (target.in_features + target.out_features) for target in targets)


def select_targets(targets: Iterable[LoraTarget], config: LoraConfig) -> tuple[LoraTarget, ...]:
    """Return the targets that ``config`` trains."""
    trained = {
        "attn": config.train_attn,
        "mlp": config.train_mlp,
        "unembed": config.train_unembed,
    }
    return tuple(target for target in targets if trained[target.kind])


def _views(
    flat: torch.Tensor, targets: Iterable[LoraTarget], rank: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    offset = 0
    for target in targets:
        middle = offset + rank * target.in_features
        stop = middle + rank * target.out_features
        lora_a = flat[offset:middle].view(rank, target.in_features)
        lora_b = flat[middle:stop].view(target.out_features, rank)
        pairs[target.path] = (lora_a, lora_b)
        offset = stop
    return pairs
