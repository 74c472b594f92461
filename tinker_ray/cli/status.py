"""``tinker-ray status``: the service, the embedded engines of this machine, a Ray cluster."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinker_ray.cli.command import add
from tinker_ray.cli.failure import EXIT_FAILED
from tinker_ray.cli.terminal import Table, Terminal
from tinker_ray.cli.wording import count
from tinker_ray.config import EMBEDDED_API_KEY, Settings
from tinker_ray.errors import ConfigurationError, TinkerError

if TYPE_CHECKING:
    from actors.overview import SessionOverview
    from tinker_ray.engine.inventory import RecordedEngine

SERVICE_S = 10.0
ENGINE_S = 3.0
"""How long to wait for an answer, of the service and of an engine on this machine."""

Row = tuple[str, str, str]


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, status, "status")


def status(
    terminal: Terminal,
    *,
    ray_address: Annotated[
        str | None, typer.Option("--ray", help="A Ray cluster; by default that of RAY_ADDRESS.")
    ] = None,
) -> None:
    """Show whether the service answers, and what runs on this machine and on a Ray cluster.

    Ends with 1 if the service does not answer.
    """
    from tinker_ray.engine.inventory import recorded

    settings = Settings.from_env(base_url=terminal.base_url)
    value: dict[str, Any] = {
        "service": _service(terminal, settings),
        "engines": [_engine(terminal, each) for each in recorded(settings.home)],
        "cluster": _cluster(ray_address or settings.ray_address),
    }
    rows = [_service_row(value["service"]), *map(_engine_row, value["engines"])]
    rows += _cluster_rows(value["cluster"])
    terminal.show(value, Table(("What", "Where", "State"), rows))
    if value["service"]["reachable"] is False:
        raise typer.Exit(EXIT_FAILED)


def _service(terminal: Terminal, settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {"base_url": settings.base_url, "reachable": None}
    if settings.embedded_model is not None:  # it is started when it is used
        return found
    return found | _asked(terminal, None, SERVICE_S)


def _engine(terminal: Terminal, engine: RecordedEngine) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": engine.name,
        "url": engine.url,
        "pid": engine.pid,
        "folder": str(engine.folder),
        "reachable": False,
        "error": "its process is gone",
    }
    if engine.runs:
        described |= {"error": None} | _asked(terminal, engine.url, ENGINE_S)
    return described


def _asked(terminal: Terminal, url: str | None, timeout_s: float) -> dict[str, Any]:
    """Ask a service which models it has; one on this machine gets no key of its user's."""
    address, key = (terminal.base_url, None) if url is None else (url, EMBEDDED_API_KEY)
    try:
        offered = terminal.clients.probe(address, key, timeout_s=timeout_s)
    except TinkerError as error:
        return {"reachable": False, "error": str(error)}
    return {"reachable": True, "models": [model.model_name for model in offered]}


def _cluster(address: str | None) -> dict[str, Any] | None:
    if address is None:
        return None
    from actors.overview import overview

    try:
        seen = overview(address)
    except ConfigurationError as error:
        return {"address": address, "error": str(error)}
    sessions = [_session(each) for each in seen.sessions]
    return {"address": seen.address, "nodes": seen.nodes, "sessions": sessions}


def _session(session: SessionOverview) -> dict[str, Any]:
    known = dict(session.inventory or {})
    holders = known.pop("holders", [])
    return {
        "session_id": session.session_id,
        "namespace": session.namespace,
        "actors": list(session.actors),
        "error": session.problem,
        **known,
        "holders": [
            {"kind": holder.kind, "actor": holder.actor, "node": holder.node} for holder in holders
        ],
        "samplers": [
            {"actor": name, "answers": state is not None} | (asdict(state) if state else {})
            for name, state in session.samplers.items()
        ],
    }


def _service_row(service: dict[str, Any]) -> Row:
    state = "started when it is used" if service["reachable"] is None else _state(service)
    return "Service", service["base_url"], state


def _engine_row(engine: dict[str, Any]) -> Row:
    return "Engine on this machine", f"{engine['url']} (pid {engine['pid']})", _state(engine)


def _state(asked: dict[str, Any]) -> str:
    if asked["reachable"]:
        return f"answers, {count(len(asked['models']), 'model')}"
    return str(asked["error"])


def _cluster_rows(cluster: dict[str, Any] | None) -> list[Row]:
    if cluster is None:
        return [("Ray", "-", "not asked: set RAY_ADDRESS or give --ray")]
    if "error" in cluster:
        return [("Ray", cluster["address"], cluster["error"])]
    state = f"{count(cluster['nodes'], 'node')}, {count(len(cluster['sessions']), 'session')}"
    rows = [("Ray", cluster["address"], state)]
    for session in cluster["sessions"]:
        rows.append(("Session on Ray", session["session_id"], describe_session(session)))
        rows += [
            (f"  {sampler['actor']}", _node(sampler), describe_sampler(sampler))
            for sampler in session["samplers"]
        ]
    return rows


def _node(sampler: dict[str, Any]) -> str:
    """The beginning of the id of its Ray node, as Ray's own tools show it."""
    return f"node {sampler['node'][:8]}" if sampler["answers"] else "-"


def describe_sampler(sampler: dict[str, Any]) -> str:
    """Word what a sampler says of itself."""
    if not sampler["answers"]:
        return "starting or lost"
    under_way = sampler["load"] - sampler["waiting"]
    words = f"{sampler['waiting']} waiting, {under_way} in flight, {sampler['drawn']} drawn"
    if sampler["conversations"]:
        words += f", {count(sampler['conversations'], 'conversation')}"
    for name in ("resubmitted", "hedged"):
        words += f", {sampler[name]} {name}" if sampler[name] else ""
    return words + (", draining" if sampler["is_ending"] else "")


def describe_session(session: dict[str, Any]) -> str:
    """Word what a session's actor says of itself."""
    if session["error"] is not None:
        return str(session["error"])
    heartbeat = "alive" if session["heartbeat"] else "without a heartbeat"
    permits = f"{session['permits_in_use']}/{session['permits_limit']} permits in use"
    models = count(len(session["trainings"]), "model") + " in training"
    holders = count(len(session["holders"]), "permit holder")
    pause = f", paused for {session['pause_s']:.1f} s" if session["pause_s"] else ""
    budget = describe_budget(session["budget"]) if session.get("budget") else ""
    return f"{heartbeat}, {holders}, {permits}, {models}{pause}{budget}"


def describe_budget(budget: dict[str, float | None]) -> str:
    """Word what a run has spent of its budget."""
    words = ""
    if budget["tokens_limit"] is not None:
        words += f", {budget['tokens_spent']:g}/{budget['tokens_limit']:g} tokens spent"
    if budget["cost_limit"] is not None:
        words += f", {budget['cost_spent']:.2f}/{budget['cost_limit']:.2f} of its money spent"
    return words
