"""``tinker-ray session``: sessions and what they made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tinker_ray.cli.command import add
from tinker_ray.cli.page import LimitOption, ScopeOption, fetch
from tinker_ray.cli.terminal import Table, Terminal, properties
from tinker_ray.cli.wording import size

PAGE_SESSIONS = 100
SessionArgument = Annotated[str, typer.Argument(metavar="SESSION_ID")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Sessions.", no_args_is_help=True)
    add(group, list_sessions, "list")
    add(group, info, "info")
    add(group, export_trace, "export-trace")
    app.add_typer(group, name="session")


def list_sessions(
    terminal: Terminal, *, limit: LimitOption = 20, access_scope: ScopeOption = None
) -> None:
    """List sessions, newest first."""
    rest = terminal.rest()
    given: dict[str, Any] = {} if access_scope is None else {"access_scope": access_scope.value}

    def page(limit: int, offset: int) -> tuple[list[str], int | None]:
        return rest.list_sessions(limit=limit, offset=offset, **given).result().sessions, None

    listed = fetch(terminal, page, noun="session", limit=limit, page_size=PAGE_SESSIONS)
    table = Table(("Session ID",), [(session,) for session in listed.items])
    terminal.show({"sessions": listed.items}, table)


def info(
    terminal: Terminal, session_id: SessionArgument, *, access_scope: ScopeOption = None
) -> None:
    """Show the training runs and samplers that a session made."""
    given: dict[str, Any] = {} if access_scope is None else {"access_scope": access_scope.value}
    session = terminal.rest().get_session(session_id, **given).result()
    pairs = [
        ("Session ID", session_id),
        *([("Name", session.display_name)] if session.display_name else []),
        *(("Training run", run_id) for run_id in session.training_run_ids),
        *(("Sampler", sampler_id) for sampler_id in session.sampler_ids),
        *((f"Metadata {key}", value) for key, value in (session.user_metadata or {}).items()),
    ]
    value = {"session_id": session_id, **session.model_dump(mode="json")}
    terminal.show(value, properties(f"Session {session_id}", pairs))


def export_trace(
    terminal: Terminal,
    session_id: SessionArgument,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file; by default SESSION_ID.pftrace here."),
    ] = None,
    url_only: Annotated[
        bool, typer.Option("--url-only", help="Print the address, which needs no key, instead.")
    ] = False,
) -> None:
    """Download a trace of what a session did, for https://ui.perfetto.dev."""
    rest = terminal.rest()
    terminal.note(f"The service makes a trace of {session_id}; this may take a while")
    url = rest.export_session_trace(session_id).result()
    if url_only:
        terminal.done(url, {"session_id": session_id, "url": url})
        return
    urls = [url]

    async def find() -> str:
        return urls.pop() if urls else await rest.export_session_trace(session_id)

    file = output or Path(f"{session_id}.pftrace")
    file.parent.mkdir(parents=True, exist_ok=True)
    num_bytes = terminal.fetch(find, file, "Downloading")
    value = {
        "session_id": session_id,
        "destination": str(file),
        "file_size_bytes": num_bytes,
    }
    pairs = [("Session ID", session_id), ("File", str(file)), ("Size", size(num_bytes))]
    terminal.show(value, properties("Trace", pairs))
