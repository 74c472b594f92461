"""Adapters on disk, in PEFT's layout, with the optimizer beside them.

A checkpoint is a directory: ``adapter_model.safetensors`` and ``adapter_config.json`` as
``peft.PeftModel.from_pretrained`` reads them, ``training_state.json``, and
``optimizer.safetensors`` if the optimizer is kept. Gradients that no step has used are not kept.
Knows nothing of models at work.

Invariant: a checkpoint directory is complete or absent, and loads bit for bit.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from tinker_ray.engine.model.adapter import LORA_ALPHA, Adapter, LoraTarget, num_elements
from tinker_ray.engine.training.adamw import AdamW
from tinker_ray.errors import EngineError
from tinker_ray.types import LoraConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

_WEIGHTS = "adapter_model.safetensors"
_PEFT_CONFIG = "adapter_config.json"
PEFT_FILES = (_PEFT_CONFIG, _WEIGHTS)
"""What other tools load of a checkpoint."""
_OPTIMIZER = "optimizer.safetensors"
_STATE = "training_state.json"
_PREFIX = "base_model.model."


@dataclass(frozen=True, eq=False)
class SavedTraining:
    """A checkpoint read back.

    Attributes:
        base_model: Name of the model that the adapter was trained on.
        adapter: Its tensors, without gradients.
        optimizer: None if the checkpoint has none.
    """

    base_model: str
    adapter: Adapter
    optimizer: AdamW | None


def save_adapter(
    directory: Path, adapter: Adapter, *, base_model: str, optimizer: AdamW | None
) -> int:
    """Write a checkpoint and return its size in bytes.

    Raises:
        EngineError: ``directory`` exists.
    """
    state = {
        "base_model": base_model,
        "lora_config": adapter.config.model_dump(),
        "lora_alpha": LORA_ALPHA,
        "targets": [vars(target) for target in adapter.targets],
        "num_steps": None if optimizer is None else optimizer.num_steps,
    }
    files = {**peft_files(adapter, base_model=base_model), _STATE: _json(state)}
    if optimizer is not None:
        averages = {
            "exp_avg": optimizer.exp_avg.detach().cpu(),
            "exp_avg_sq": optimizer.exp_avg_sq.detach().cpu(),
        }
        files[_OPTIMIZER] = safetensors.torch.save(averages, {"format": "pt"})
    write_directory(directory, files)
    return sum(len(content) for content in files.values())


def peft_files(adapter: Adapter, *, base_model: str) -> dict[str, bytes]:
    """Make the files that ``peft.PeftModel.from_pretrained`` reads, by name."""
    return {
        _WEIGHTS: safetensors.torch.save(_tensors(adapter), {"format": "pt"}),
        _PEFT_CONFIG: _json(_peft_config(adapter, base_model)),
    }


def load_training(directory: Path, device: torch.device | None = None) -> SavedTraining:
    """Read a checkpoint.

    Raises:
        EngineError: It is missing or damaged.
    """
    try:
        state = json.loads((directory / _STATE).read_bytes())
        config = LoraConfig(**state["lora_config"])
        targets = tuple(LoraTarget(**target) for target in state["targets"])
        tensors = safetensors.torch.load((directory / _WEIGHTS).read_bytes())
        flat = torch.empty(num_elements(targets, config.rank), dtype=torch.float32)
        adapter = Adapter.over(flat, targets, config)
        for name, tensor in _tensors(adapter).items():
            tensor.copy_(tensors[name])
        optimizer = _load_optimizer(directory, flat, state["num_steps"], device)
    except FileNotFoundError as error:
        message = f"there is no complete checkpoint in {directory}: {error.filename} is missing"
        raise EngineError(message, category="user") from error
    except (KeyError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        message = f"the checkpoint in {directory} is damaged: {error}"
        raise EngineError(message) from error
    adapter = Adapter.over(flat if device is None else flat.to(device), targets, config)
    return SavedTraining(state["base_model"], adapter, optimizer)


def load_adapter(directory: Path, device: torch.device | None = None) -> Adapter:
    """Read only the weights of a checkpoint, as a sampler needs them.

    Raises:
        EngineError: The checkpoint is missing or damaged.
    """
    return load_training(directory, device).adapter


def _load_optimizer(
    directory: Path, flat: torch.Tensor, num_steps: int | None, device: torch.device | None
) -> AdamW | None:
    if num_steps is None:
        return None
    averages = safetensors.torch.load((directory / _OPTIMIZER).read_bytes())
    if any(averages[name].shape != flat.shape for name in ("exp_avg", "exp_avg_sq")):
        message = f"{_OPTIMIZER} does not fit {_WEIGHTS}"
        raise ValueError(message)
    return AdamW(averages["exp_avg"].to(device), averages["exp_avg_sq"].to(device), num_steps)


def _tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path, (lora_a, lora_b) in adapter.pairs.items():
        tensors[f"{_PREFIX}{path}.lora_A.weight"] = lora_a.detach().cpu()
        tensors[f"{_PREFIX}{path}.lora_B.weight"] = lora_b.detach().cpu()
    return tensors


def _peft_config(adapter: Adapter, base_model: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": adapter.config.rank,
        "lora_alpha": LORA_ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({target.path.rpartition(".")[2] for target in adapter.targets}),
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode()


def write_directory(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a new directory, all of them or none.

    Raises:
        EngineError: ``directory`` exists.
    """
    if directory.exists():
        message = f"{directory} exists: a checkpoint is written once"
        raise EngineError(message, category="user")
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    scratch.mkdir()
    try:
        for name, content in files.items():
            with (scratch / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync_directory(scratch)
        scratch.rename(directory)
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
