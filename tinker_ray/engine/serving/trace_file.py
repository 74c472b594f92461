"""What a session did, as a file that trace viewers open: Chrome's JSON trace events.

Source: "Trace Event Format" (Google, 2016), which ui.perfetto.dev and chrome://tracing read.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tinker_ray.engine.store.ledger import Ledger
    from tinker_ray.engine.store.row import SessionRow

_PATIENCE_S = 2.0
_PID = 1


class TraceFiles:
    """The traces of an engine.

    Args:
        ledger: Where the operations are.
        folder: Where the files go.
    """

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self._ledger = ledger
        self._folder = folder
        self._writing: dict[str, asyncio.Task[str]] = {}

    async def export(self, session: SessionRow) -> str | None:
        """Write the trace of a session unless it is there; None while that takes long.

        Returns:
            The name of the file.
        """
        key = session.session_id
        task = self._writing.get(key)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(self._write, session))
            self._writing[key] = task
        done, _ = await asyncio.wait([task], timeout=_PATIENCE_S)
        if not done:
            return None
        self._writing.pop(key, None)
        return task.result()

    async def close(self) -> None:
        """Wait until nothing is being written."""
        await asyncio.gather(*self._writing.values(), return_exceptions=True)

    def _write(self, session: SessionRow) -> str:
        rows = self._ledger.usage.of_session(session.session_id)
        version = rows[-1]["activity_id"] if rows else 0
        name = f"{session.session_id}-{version}.json"
        path = self._folder / name
        self._folder.mkdir(exist_ok=True)
        if path.exists():
            path.touch()
        else:
            scratch = path.with_suffix(".tmp")
            scratch.write_text(json.dumps(chrome_trace(session.session_id, rows)))
            scratch.replace(path)
        return name


def chrome_trace(session_id: str, rows: Sequence[sqlite3.Row]) -> dict[str, Any]:
    """Make a trace: a line for each model and sampling session, a bar for each operation.

    Operations of a model follow each other; what they waited before is a bar of its own. Samples
    overlap, so theirs are asynchronous.
    """
    tracks = {
        track: number for number, track in enumerate(dict.fromkeys(row["track"] for row in rows))
    }
    events: list[dict[str, Any]] = [_named("process_name", 0, f"session {session_id}")]
    events += [_named("thread_name", number, track) for track, number in tracks.items()]
    for row in rows:
        events += _events(row, tracks[row["track"]])
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _named(what: str, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": _PID, "tid": thread, "args": {"name": name}}


def _events(row: sqlite3.Row, thread: int) -> Iterator[dict[str, Any]]:
    place = {"pid": _PID, "tid": thread, "cat": row["kind"]}
    arguments = {
        "request_id": row["request_id"],
        "tokens": row["tokens"],
        "ok": bool(row["ok"]),
    }
    waiting = {**place, "id": row["request_id"]}
    accepted, ended = _microseconds(row["accepted_at"]), _microseconds(row["ended_at"])
    if row["started_at"] is None:
        yield {**waiting, "ph": "b", "name": row["kind"], "ts": accepted, "args": arguments}
        yield {**waiting, "ph": "e", "name": row["kind"], "ts": ended}
        return
    started = _microseconds(row["started_at"])
    yield {**waiting, "ph": "b", "name": f"{row['kind']} waits", "ts": accepted}
    yield {**waiting, "ph": "e", "name": f"{row['kind']} waits", "ts": started}
    bar = {"ph": "X", "name": row["kind"], "ts": started, "dur": ended - started}
    yield {**place, **bar, "args": arguments}


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
