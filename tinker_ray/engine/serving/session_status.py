"""How a session stands, and whether that is what a search asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_ray.engine.serving.session_schema import FinishedQuery
from tinker_ray.engine.store.journal import LOAD_THE_LAST_CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_ray.engine.host import Host
    from tinker_ray.engine.serving.session_schema import SessionStatusQuery
    from tinker_ray.engine.store.row import SessionRow

_ALIVE_S = 120.0
"""Clients send a sign of life every 10 s."""


def status_of(host: Host, row: SessionRow) -> dict[str, Any] | None:
    """Tell how a session stands; None if it was not finished and is silent."""
    if row.finished_at is not None:
        finish = row.finish or {"reason": {"type": "success"}}
        return {
            "type": "client_finished",
            "reason": {"type": finish["reason"]["type"]},
            "detail": finish.get("detail"),
        }
    if host.now() - row.last_seen_at <= _ALIVE_S:
        return {"type": "active"}
    for model in host.ledger.models.of_session(row.session_id):
        if model.state == "lost":
            return {
                "type": "failed",
                "category": "internal",
                "message": LOAD_THE_LAST_CHECKPOINT,
                "reason": {"type": "training_run", "training_run_id": model.model_id},
            }
    return None


def is_searched(
    status: dict[str, Any] | None, queries: Sequence[SessionStatusQuery] | None
) -> bool:
    """Whether a search for some states finds a session that stands so."""
    if queries is None:
        return True
    return any(status is not None and _fits(status, query) for query in queries)


def _fits(status: dict[str, Any], query: SessionStatusQuery) -> bool:
    if status["type"] != query.type:
        return False
    if not isinstance(query, FinishedQuery) or query.reasons is None:
        return True
    return status["reason"]["type"] in query.reasons
