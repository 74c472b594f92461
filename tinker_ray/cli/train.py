"""``tinker-ray train`` and ``tinker-ray demo``: RL runs from the command line.

Knows only how to read arguments; the run itself is loaded when a command is called, so that others
start at once. Invariant: Ctrl-C gives exit code 130 and no traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tinker_ray.rl.supervised_config import AnyConfig

EXIT_INTERRUPTED = 130
DEMO_TARGET_ACCURACY = 0.95


class ModeOption(StrEnum):
    """Where a run happens."""

    local = "local"
    cluster = "cluster"


SeedOption = Annotated[int | None, typer.Option(min=0, help="Decides problems and every draw.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")]
RunDirOption = Annotated[
    Path | None, typer.Option(help="Run directory; an unfinished run in it is gone on with.")
]
RunsOption = Annotated[Path, typer.Option(help="Folder of run directories.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the CLI."""
    app.command()(train)
    app.command()(demo)


def demo(
    seed: SeedOption = None,
    mode: Annotated[ModeOption, typer.Option(help="On Ray, or in one process.")] = (
        ModeOption.cluster
    ),
    steps: StepsOption = None,
    run_dir: RunDirOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Train a small model with RL on this machine and show what it learned.

    Starts Ray and an embedded engine, teaches the model to add, ends both. The same command goes on
    with a run that was interrupted.
    """
    overrides: dict[str, object] = {
        "seed": seed,
        "steps": steps,
        "target_accuracy": DEMO_TARGET_ACCURACY,
    }
    _launch(lambda: _load(None, overrides), mode, runs, run_dir)


def train(  # noqa: PLR0913 - one per option
    config: Annotated[Path | None, typer.Argument(help="Settings of the run: a TOML file.")] = None,
    *,
    seed: SeedOption = None,
    steps: StepsOption = None,
    base_url: Annotated[str | None, typer.Option(help="Service, or `embedded`.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Model to adapt.")] = None,
    environment: Annotated[str | None, typer.Option(help="`adder` or `module:function`.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    rank: Annotated[int | None, typer.Option(help="Of the LoRA adapter.")] = None,
    loss_fn: Annotated[str | None, typer.Option(help="importance_sampling, ppo or cispo.")] = None,
    max_staleness: Annotated[
        int | None,
        typer.Option(min=0, help="Train asynchronously, with weights so many steps old at most."),
    ] = None,
    target_accuracy: Annotated[
        float | None, typer.Option(help="End early at an evaluation that reaches it.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, as KEY=VALUE.")
    ] = None,
    mode: Annotated[
        ModeOption | None, typer.Option(help="Default: TINKER_RAY_MODE, else as Ray is found.")
    ] = None,
    run_dir: RunDirOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Train with RL, or on examples (`kind = "sft"` or `"dpo"`), as a TOML file and options say.

    Options win over the file.

    The same command goes on with a run that was interrupted.
    """
    named: dict[str, object] = {
        "seed": seed,
        "steps": steps,
        "base_url": base_url,
        "base_model": base_model,
        "environment": environment,
        "learning_rate": learning_rate,
        "rank": rank,
        "loss_fn": loss_fn,
        "max_staleness": max_staleness,
        "target_accuracy": target_accuracy,
    }
    given = {key: value for key, value in named.items() if value is not None}
    overrides = {**dict(_pair(text) for text in setting or ()), **given}
    _launch(lambda: _load(config, overrides), mode, runs, run_dir)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set {text}: use KEY=VALUE")
    return key, value


def _load(path: Path | None, overrides: dict[str, object]) -> AnyConfig:
    from tinker_ray.rl.supervised_config import load

    return load(path, overrides)


def _launch(
    load_config: Callable[[], AnyConfig], mode: ModeOption | None, runs: Path, run_dir: Path | None
) -> None:
    try:
        from tinker_ray.rl.launch import launch

        code = launch(
            load_config, mode=None if mode is None else mode.value, root=runs, run_dir=run_dir
        )
    except KeyboardInterrupt:  # before the run took the signal over, or after it gave it back
        typer.echo("stopped")
        code = EXIT_INTERRUPTED
    raise typer.Exit(code)
