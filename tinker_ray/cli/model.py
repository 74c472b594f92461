"""``tinker-ray model``: base models that the service offers."""

from __future__ import annotations

from typing import Annotated

import typer

from tinker_ray.cli.command import add
from tinker_ray.cli.failure import CommandError
from tinker_ray.cli.terminal import Table, Terminal
from tinker_ray.cli.wording import text, whether


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Base models.", no_args_is_help=True)
    add(group, list_models, "list")
    app.add_typer(group, name="model")


def list_models(
    terminal: Terminal,
    substring: Annotated[
        str | None, typer.Argument(help="Only names that contain it, whatever the case.")
    ] = None,
) -> None:
    """List the base models that can be trained or sampled; the name goes into `base_model`."""
    offered = terminal.rest().get_server_capabilities().result().supported_models
    part = (substring or "").lower()
    models = [model for model in offered if part in (model.model_name or "").lower()]
    if substring and not models:
        raise CommandError(
            f"no model's name contains {substring!r}", "tinker-ray model list shows all of them."
        )
    rows = [
        (
            text(model.model_name),
            text(model.max_context_length),
            whether(model.trainable),
            whether(model.sampleable),
        )
        for model in models
    ]
    table = Table(("Model", "Context", "Trainable", "Sampleable"), rows)
    terminal.show({"models": [model.model_dump(mode="json") for model in models]}, table)
