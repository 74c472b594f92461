"""Opens what a run needs, goes through its loop, closes everything in reverse order.

Knows nothing of Ray or signals: cancel the coroutine and it ends cleanly. Invariant: a run whose
checkpoint is gone begins anew rather than going on from nothing.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any, cast

from tinker_ray.clients.service import ServiceClient
from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.adder import AdderDataset, Tokenizer
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.logger import open_loggers
from tinker_ray.rl.loop import Loop
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.record import Summary
from tinker_ray.rl.reference_kl import ReferencePenalty
from tinker_ray.rl.restore import ModelStore
from tinker_ray.rl.retention import KeepRule, Retention, ServiceStore, saved_by
from tinker_ray.rl.run_directory import RunDirectory
from tinker_ray.rollouts import Dataset

MakeDataset = Callable[[RunConfig, Tokenizer], Dataset]


async def train(
    config: RunConfig,
    directory: RunDirectory,
    *,
    progress: Progress,
    mode: str,
    make_dataset: MakeDataset | None = None,
) -> Summary:
    """Run, or go on with, a training run.

    Args:
        config: Its settings.
        directory: Where it is written down, and where it stands.
        progress: Where it is shown.
        mode: ``local`` or ``cluster``, for the summary.
        make_dataset: The problems; by default what ``config.environment`` names.

    Raises:
        ConfigurationError: The environment cannot be found, or a logger's package is missing.
        TinkerError: The service or every rollout failed.
    """
    make_dataset = make_dataset or find_dataset(config.environment)
    settings = config.model_dump(mode="json")
    directory.logger = open_loggers(config.loggers, directory.path, config=settings)
    progress.status(f"connecting to {config.base_url}")
    async with ServiceClient(base_url=config.base_url) as service:
        return await train_on(
            service, config, directory, progress=progress, mode=mode, make_dataset=make_dataset
        )


async def train_on(  # noqa: PLR0913 - the parts of a run
    service: ServiceClient,
    config: RunConfig,
    directory: RunDirectory,
    *,
    progress: Progress,
    mode: str,
    make_dataset: MakeDataset,
) -> Summary:
    """Do the same on a service that is open, and stays so.

    Raises:
        TinkerError: The service or every rollout failed.
    """
    store = ModelStore(service, config, directory, progress)
    training = await store.open()
    tokenizer = cast("Tokenizer", await asyncio.to_thread(training.get_tokenizer))
    directory.retention = _kept_by_accuracy(service, config, directory)
    async with RolloutPool(
        config.workers,
        groups_per_worker=config.groups_per_worker,
        far_bytes=config.far_bytes,
    ) as pool:
        loop = Loop(
            config,
            dataset=make_dataset(config, tokenizer),
            training=training,
            pool=pool,
            directory=directory,
            progress=progress,
            decode=tokenizer.decode,
            mode=mode,
            penalty=await _penalty(service, config),
            reopen=store.reopen,
            sample_from=store.sample_from,
        )
        return await loop.run()


async def _penalty(service: ServiceClient, config: RunConfig) -> ReferencePenalty | None:
    if config.kl_coefficient == 0:
        return None
    reference = await service.create_sampling_client_async(base_model=config.base_model)
    return ReferencePenalty(reference, config.kl_coefficient)


def _kept_by_accuracy(
    service: ServiceClient, config: RunConfig, directory: RunDirectory
) -> Retention:
    store = ServiceStore(service.create_rest_client(), service.holder.get_session_id())
    saved = saved_by(directory.checkpoints(), directory.rows(), lambda row: row["eval_accuracy"])
    return Retention(KeepRule(config.keep_checkpoints), store, saved)


def find_dataset(environment: str) -> MakeDataset:
    """Look up an environment by its name: ``adder`` or ``module:function``.

    Raises:
        ConfigurationError: There is none of that name.
    """
    if environment == "adder":
        return _adder
    module, colon, function = environment.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), function) if colon else None
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"environment {environment!r}: {error}") from error
    if not callable(found):
        raise ConfigurationError(
            f"environment {environment!r} is unknown: use 'adder' or 'module:function'"
        )
    return cast("MakeDataset", found)


def _adder(config: RunConfig, tokenizer: Tokenizer) -> Dataset:
    return AdderDataset(
        tokenizer,
        seed=config.seed,
        prompts_per_step=config.prompts_per_step,
        samples_per_prompt=config.samples_per_prompt,
        eval_problems=config.eval_problems,
        eval_samples=config.eval_samples,
    )
