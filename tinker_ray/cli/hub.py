"""``tinker-ray checkpoint push-hf``: a checkpoint as a PEFT adapter on the Hugging Face Hub.

The hub is behind a small interface, so that everything but its own client is tested without it.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from tinker_ray.cli import model_card
from tinker_ray.cli.checkpoint_download import download
from tinker_ray.cli.checkpoint_path import PathArgument, parse
from tinker_ray.cli.command import add
from tinker_ray.cli.failure import CommandError
from tinker_ray.cli.model_card import Adapter
from tinker_ray.cli.terminal import Terminal, properties

if TYPE_CHECKING:
    from tinker_ray.clients.rest import RestClient

PAGE = "README.md"
CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_UNFIT = re.compile(r"[^A-Za-z0-9._]+")
_PARTS = ("attn", "mlp", "unembed")


@dataclass(frozen=True, slots=True)
class Upload:
    """Where and how a folder is uploaded; the names are the hub's own.

    Attributes:
        repo_id: ``user/name``.
        private: Of a repository that has to be made.
        revision: A branch; None for the main one.
        commit_message: None for the hub's own words.
        create_pr: As a pull request.
        allow_patterns: Only files that fit one of them; None for all.
        ignore_patterns: No files that fit one of them.
    """

    repo_id: str
    private: bool = True
    revision: str | None = None
    commit_message: str | None = None
    create_pr: bool = False
    allow_patterns: list[str] | None = None
    ignore_patterns: list[str] | None = None


class Hub(Protocol):
    """What is needed of a hub."""

    def check_login(self) -> None:
        """Fail if nobody is logged in."""

    def page(self, repo_id: str, revision: str | None) -> str | None:
        """Read a repository's page; None if there is no repository or no page."""

    def upload(self, folder: Path, upload: Upload) -> None:
        """Make the repository unless it is there, and upload a folder into it."""


def register(group: typer.Typer) -> None:
    """Add the command."""
    add(group, push_hf, "push-hf")


def push_hf(  # noqa: PLR0913 - the options of a command
    terminal: Terminal,
    path: PathArgument,
    *,
    repo: Annotated[
        str | None, typer.Option("--repo", "-r", help="USER/NAME; by default from the run.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="A new repository can be read by everybody.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="A branch.")] = None,
    commit_message: Annotated[str | None, typer.Option(help="Of the upload.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="As a pull request.")] = False,
    allow_pattern: Annotated[
        list[str] | None, typer.Option(help="Only files that fit; repeatable.")
    ] = None,
    ignore_pattern: Annotated[
        list[str] | None, typer.Option(help="No files that fit; repeatable.")
    ] = None,
    no_model_card: Annotated[
        bool, typer.Option("--no-model-card", help=f"Write no {PAGE}.")
    ] = False,
) -> None:
    """Upload a checkpoint to the Hugging Face Hub as a PEFT adapter."""
    parse(path)
    hub = terminal.open_hub()
    hub.check_login()
    rest = terminal.rest()
    adapter = _described(rest, path)
    derived, branch = _names(adapter, path)
    upload = Upload(
        repo_id=repo or derived,
        private=not public,
        revision=revision or (branch if repo is None else None),
        commit_message=commit_message,
        create_pr=create_pr,
        allow_patterns=allow_pattern,
        ignore_patterns=ignore_pattern,
    )
    _refuse_other_source(hub, upload, path)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "adapter"
        download(terminal, rest, path, folder)
        _complete(folder, adapter)
        if not no_model_card and not (folder / PAGE).exists():
            (folder / PAGE).write_text(model_card.render(adapter, upload.repo_id), encoding="utf-8")
        hub.upload(folder, upload)
    value = {
        "checkpoint_path": path,
        "repo_id": upload.repo_id,
        "revision": upload.revision,
        "public": public,
    }
    pairs = [("Checkpoint", path), ("Repository", upload.repo_id)]
    terminal.show(value, properties("Uploaded", pairs))


def _described(rest: RestClient, path: str) -> Adapter:
    info = rest.get_weights_info_by_tinker_path(path).result()
    flags = (info.train_attn, info.train_mlp, info.train_unembed)
    trained = tuple(name for name, flag in zip(_PARTS, flags, strict=True) if flag)
    return Adapter(path, info.base_model, info.lora_rank, trained)


def _names(adapter: Adapter, path: str) -> tuple[str, str]:
    """Derive a repository, one per run, and a branch, one per checkpoint."""
    parsed = parse(path)
    model = adapter.base_model.rpartition("/")[2]
    return _fit(f"tinker-{model}-{parsed.training_run_id}"), _fit(parsed.checkpoint_id)


def _fit(name: str) -> str:
    return re.sub("-+", "-", _UNFIT.sub("-", name)).strip("-._")


def _refuse_other_source(hub: Hub, upload: Upload, path: str) -> None:
    page = hub.page(upload.repo_id, upload.revision)
    source = None if page is None else model_card.source_of(page)
    if source not in {None, path}:
        raise CommandError(
            f"{upload.repo_id} holds another checkpoint, {source}",
            "Give another --repo, or another --revision of this one.",
        )


def _complete(folder: Path, adapter: Adapter) -> None:
    """Check that PEFT can load the folder, and that it names its base model."""
    config = folder / CONFIG
    if not config.exists() or not any((folder / name).exists() for name in WEIGHTS):
        raise CommandError(
            f"{adapter.tinker_path} holds no PEFT adapter: {CONFIG} or its weights are missing",
            "Encrypted exports have to be decrypted first, and cannot be pushed from here.",
        )
    settings = json.loads(config.read_text(encoding="utf-8"))
    if not settings.get("base_model_name_or_path"):
        settings["base_model_name_or_path"] = adapter.base_model
        config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


class HuggingFaceHub:
    """The real hub, through ``huggingface_hub``.

    Raises:
        CommandError: The package is not installed.
    """

    def __init__(self) -> None:
        try:
            import huggingface_hub
        except ImportError:
            raise CommandError(
                "push-hf needs huggingface_hub",
                "Install it, then log in: pip install huggingface_hub && hf auth login",
            ) from None
        self._package = huggingface_hub
        self._api = huggingface_hub.HfApi()

    def check_login(self) -> None:
        """Fail if nobody is logged in.

        Raises:
            CommandError: Nobody is, or the hub cannot be reached.
        """
        try:
            self._api.whoami()
        except Exception as error:  # noqa: BLE001 - whatever its HTTP client raises
            raise CommandError(f"not logged in to the hub: {error}", "hf auth login") from None

    def page(self, repo_id: str, revision: str | None) -> str | None:
        """Read a repository's page; None if there is no repository or no page."""
        missing = (
            self._package.errors.RepositoryNotFoundError,
            self._package.errors.RevisionNotFoundError,
            self._package.errors.EntryNotFoundError,
        )
        try:
            path = self._package.hf_hub_download(repo_id, PAGE, revision=revision)
        except missing:
            return None
        return Path(path).read_text(encoding="utf-8", errors="replace")

    def upload(self, folder: Path, upload: Upload) -> None:
        """Make the repository unless it is there, and upload a folder into it.

        Raises:
            CommandError: The hub refused.
        """
        errors = (self._package.errors.HfHubHTTPError, self._package.errors.HFValidationError)
        try:
            self._api.create_repo(upload.repo_id, private=upload.private, exist_ok=True)
            if upload.revision is not None:
                self._api.create_branch(upload.repo_id, branch=upload.revision, exist_ok=True)
            self._api.upload_folder(
                folder_path=folder,
                repo_id=upload.repo_id,
                revision=upload.revision,
                commit_message=upload.commit_message,
                create_pr=upload.create_pr,
                allow_patterns=upload.allow_patterns,
                ignore_patterns=upload.ignore_patterns,
            )
        except errors as error:
            raise CommandError(f"the hub refused: {error}") from error
