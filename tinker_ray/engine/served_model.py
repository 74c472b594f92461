"""A base model that the engine offers, with the threads that train and sample on it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import transformers.utils.logging

from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.sampling.sampler import Sampler
from tinker_ray.engine.training.trainer import Trainer

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One base model at work.

    Attributes:
        base: The weights, shared by the two threads.
        tokenizer_id: What a client on this machine loads the tokenizer by: the model's folder.
        trainer: Trains adapters on it.
        sampler: Samples from it.
    """

    base: BaseModel
    tokenizer_id: str
    trainer: Trainer
    sampler: Sampler

    @classmethod
    def load(cls, name: str, directory: Path) -> ServedModel:
        """Load a Hugging Face folder and start its threads.

        Raises:
            EngineError: The folder does not hold a model that the engine can run.
        """
        transformers.utils.logging.disable_progress_bar()
        base = BaseModel.load(name, directory)
        return cls(
            base=base,
            tokenizer_id=str(directory.resolve()),
            trainer=Trainer(base),
            sampler=Sampler(base),
        )

    def close(self, timeout_s: float) -> bool:
        """End the threads; what they had not done fails.

        Returns:
            Whether they ended in time; if not, they end with the process.
        """
        closer = threading.Thread(target=self._close, name="closer", daemon=True)
        closer.start()
        closer.join(timeout_s)
        return not closer.is_alive()

    def _close(self) -> None:
        self.sampler.close()
        self.trainer.close()
