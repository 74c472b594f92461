"""A tiny base model for all tests of the engine, and a trainer and a sampler for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.fakes.tiny_model import make_tiny_model
from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.sampling.sampler import Sampler
from tinker_ray.engine.training.trainer import Trainer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Work on the tests' own tensors, which are tiny, with one thread, as the engine does."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def base(tiny_model_dir: Path) -> BaseModel:
    return BaseModel.load("tiny", tiny_model_dir)


@pytest.fixture
def trainer(base: BaseModel) -> Iterator[Trainer]:
    trainer = Trainer(base)
    yield trainer
    trainer.close()


@pytest.fixture
def sampler(base: BaseModel) -> Iterator[Sampler]:
    sampler = Sampler(base)
    yield sampler
    sampler.close()
