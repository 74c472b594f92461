"""A whole run as one call: run directory, Ray if wanted, the loop, the end; what the CLI calls.

Knows nothing of argument parsing. Invariant: whatever ends the run, Ray and the engine are gone and
the run directory is valid when this returns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tinker_ray.clients import mode as client_mode
from tinker_ray.config import Settings
from tinker_ray.errors import TinkerError
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.examples_loop import EVALUATED, ExamplesSummary
from tinker_ray.rl.interrupt import Interrupted, InterruptGuard
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.record import Summary
from tinker_ray.rl.run_directory import RunDirectory, open_run
from tinker_ray.rl.supervised import train_on_examples
from tinker_ray.rl.supervised_config import AnyConfig
from tinker_ray.rl.train import train

RunMode = Literal["local", "cluster"]
EXIT_OK = 0
EXIT_FAILED = 1


def launch(
    load_config: Callable[[], AnyConfig],
    *,
    mode: RunMode | None,
    root: Path = Path("runs"),
    run_dir: Path | None = None,
    progress: Progress | None = None,
) -> int:
    """Run, or go on with, a training run and report on it.

    Args:
        load_config: Gives the settings.
        mode: Where; None leaves the choice to ``TINKER_RAY_MODE``.
        root: The folder of run directories.
        run_dir: A run directory of one's own choice.
        progress: Where to report.

    Returns:
        The exit code of the process.
    """
    with progress or Progress() as shown, InterruptGuard() as guard:
        try:
            config = load_config()
            with contextlib.closing(open_run(config, root=root, run_dir=run_dir)) as directory:
                begins = "going on with" if directory.is_resumed else "run directory"
                shown.say(f"{begins}: {directory.path}")
                summary = _in_mode(config, directory, guard, shown, mode)
        except Interrupted as interrupt:
            shown.say("stopped; the same command goes on from the last checkpoint")
            return interrupt.exit_code
        except TinkerError as error:
            shown.say(f"error: {error}")
            return EXIT_FAILED
        _report(summary, shown)
        return EXIT_OK


def _in_mode(
    config: AnyConfig,
    directory: RunDirectory,
    guard: InterruptGuard,
    progress: Progress,
    mode: RunMode | None,
) -> Summary | ExamplesSummary:
    settings = Settings.from_env(base_url=config.base_url)
    chosen = mode or client_mode.current_mode(settings)
    progress.say(
        f"{config.base_model} on {config.base_url}, {chosen} mode: up to {config.steps} steps of "
        f"{_described(config)}, seed {config.seed}"
    )
    try:
        if chosen == "cluster":
            progress.status("starting Ray")
            guard.blocking(lambda: client_mode.init(mode="cluster"))
        else:
            client_mode.init(mode="local")
        if isinstance(config, RunConfig):
            return guard.run(train(config, directory, progress=progress, mode=chosen))
        return guard.run(train_on_examples(config, directory, progress=progress, mode=chosen))
    finally:
        progress.status("closing")
        client_mode.shutdown()


def _described(config: AnyConfig) -> str:
    if isinstance(config, RunConfig):
        episodes = f"{config.prompts_per_step} prompts x {config.samples_per_prompt} samples"
        return f"{episodes}, {config.loss_fn}"
    return f"{config.batch_size} examples, {config.kind}"


def _report(summary: Summary | ExamplesSummary, progress: Progress) -> None:
    if isinstance(summary, ExamplesSummary):
        _report_examples(summary, progress)
        return
    before, after = summary.accuracy_before, summary.accuracy_after
    progress.say(
        f"held-out accuracy {before:.3f} -> {after:.3f} "
        f"({summary.eval_episodes} episodes at temperature 1) "
        f"in {summary.steps} steps, {summary.seconds:.0f} s, {summary.mode} mode"
    )
    progress.say(f"run directory: {summary.run_directory}")


def _report_examples(summary: ExamplesSummary, progress: Progress) -> None:
    changes = [
        f"{name.removeprefix(EVALUATED)} {value:.4f} -> {summary.after[name]:.4f}"
        for name, value in summary.before.items()
        if name in summary.after
    ]
    on = f"held-out {', '.join(changes)} " if changes else ""
    progress.say(f"{on}in {summary.steps} steps, {summary.seconds:.0f} s, {summary.mode} mode")
    progress.say(f"weights to sample from: {summary.sampler_weights}")
    progress.say(f"run directory: {summary.run_directory}")
