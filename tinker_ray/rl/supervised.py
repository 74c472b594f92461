"""Opens what a run on examples needs, goes through its loop, closes everything in reverse order.

Knows nothing of Ray or signals: cancel the coroutine and it ends cleanly. Invariant: examples are
read, and so refused, before a model is made.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar, cast

from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.clients.service import ServiceClient
from tinker_ray.clients.tokenizer import load_tokenizer
from tinker_ray.clients.training import TrainingClient
from tinker_ray.errors import APIStatusError, ConfigurationError, RequestFailedError
from tinker_ray.rl.dpo import Preference, Reference, adder_pairs
from tinker_ray.rl.examples import ExampleDataset, Reader, Shuffled, split
from tinker_ray.rl.examples_loop import JUDGED_BY, ExamplesLoop, ExamplesSummary, Objective
from tinker_ray.rl.logger import open_loggers
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.restore import ModelStore
from tinker_ray.rl.retention import KeepRule, Retention, ServiceStore, saved_by
from tinker_ray.rl.run_directory import RunDirectory
from tinker_ray.rl.sft import CrossEntropy, adder_examples
from tinker_ray.rl.supervised_config import DpoConfig, SftConfig

T = TypeVar("T")
MakeExamples = Callable[[Any, Any], ExampleDataset[Any]]


async def train_on_examples(
    config: SftConfig | DpoConfig,
    directory: RunDirectory,
    *,
    progress: Progress,
    mode: str,
    dataset: ExampleDataset[Any] | None = None,
) -> ExamplesSummary:
    """Run, or go on with, supervised fine-tuning or DPO.

    Args:
        config: Its settings.
        directory: Where it is written down, and where it stands.
        progress: Where it is shown.
        mode: ``local`` or ``cluster``, for the summary.
        dataset: The examples; by default what ``config.dataset`` names.

    Raises:
        ConfigurationError: The examples cannot be found or read, or a logger's package is missing.
        ModelLostError: The service lost the model, and it cannot be restored.
        TinkerError: The service failed.
    """
    progress.status(f"connecting to {config.base_url}")
    async with ServiceClient(base_url=config.base_url) as service:
        if dataset is None:
            tokenizer = await asyncio.to_thread(load_tokenizer, config.base_model)
            dataset = find_examples(config, tokenizer)
        path = directory.path / "metrics.jsonl"
        settings = config.model_dump(mode="json")
        loggers = open_loggers(config.loggers, directory.path, config=settings, jsonl=path)
        with closing(loggers):
            store = ModelStore(service, config, directory, progress)
            training = await store.open()
            while True:
                loop = ExamplesLoop[Any](
                    config,
                    kind=config.kind,
                    dataset=dataset,
                    objective=await _objective(service, config, training),
                    training=training,
                    directory=directory,
                    logger=loggers,
                    retention=kept_by_loss(service, config, directory),
                    progress=progress,
                    mode=mode,
                )
                try:
                    return await loop.run()
                except (APIStatusError, RequestFailedError) as error:
                    reopened = await store.reopen(training, error)
                    if reopened is None:
                        raise
                    training = reopened


def find_examples(config: SftConfig | DpoConfig, tokenizer: Any) -> ExampleDataset[Any]:  # noqa: ANN401
    """Make the dataset that the settings name.

    Raises:
        ConfigurationError: There is none of that name, or its file is malformed.
    """
    name, is_pairs = config.dataset, isinstance(config, DpoConfig)
    if name == "adder":
        return adder_pairs(config, tokenizer) if is_pairs else adder_examples(config, tokenizer)
    if name.endswith(".jsonl"):
        reader = Reader(tokenizer, config.max_length)
        read: Callable[[Path], Sequence[Any]] = reader.pairs if is_pairs else reader.datums
        return _from_files(config, read)
    module, colon, function = name.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), function) if colon else None
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"dataset {name!r}: {error}") from error
    if not callable(found):
        raise ConfigurationError(
            f"dataset {name!r} is unknown: use 'adder', a .jsonl file or 'module:function'"
        )
    return cast("MakeExamples", found)(config, tokenizer)


def _from_files(
    config: SftConfig | DpoConfig, read: Callable[[Path], Sequence[T]]
) -> ExampleDataset[T]:
    examples = read(Path(config.dataset))
    apart = None if config.held_out is None else read(Path(config.held_out))
    share = config.held_out_share if apart is None else 0.0
    try:
        dataset = split(
            examples, held_out_share=share, batch_size=config.batch_size, seed=config.seed
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{config.dataset}: {error}") from error
    if apart is None:
        return dataset
    return Shuffled(dataset.examples, apart, config.batch_size, config.seed)


async def _objective(
    service: ServiceClient, config: SftConfig | DpoConfig, training: TrainingClient
) -> Objective[Any]:
    if isinstance(config, SftConfig):
        return CrossEntropy(training)
    return Preference(training, Reference(await _initial_sampler(service, config)), config.beta)


async def _initial_sampler(service: ServiceClient, config: DpoConfig) -> SamplingClient:
    if config.initial_weights is None:
        return await service.create_sampling_client_async(base_model=config.base_model)
    initial = await service.create_training_client_from_state_async(config.initial_weights)
    return await initial.save_weights_and_get_sampling_client_async()


def kept_by_loss(
    service: ServiceClient, config: SftConfig | DpoConfig, directory: RunDirectory
) -> Retention:
    """Keep the checkpoints of a run to ``keep_checkpoints``; the best has the lowest loss."""
    used = [] if config.initial_weights is None else [config.initial_weights]
    store = ServiceStore(service.create_rest_client(), service.holder.get_session_id(), used)
    saved = saved_by(directory.checkpoints(), directory.rows(), lambda row: -row[JUDGED_BY])
    return Retention(KeepRule(config.keep_checkpoints), store, saved)
