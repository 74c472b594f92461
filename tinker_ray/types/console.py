"""Addresses of sessions, runs and checkpoints in the hosted service's web console.

Ids and paths go in percent-encoded, but for a session's and a run's, which the console takes raw.
"""

from __future__ import annotations

from urllib.parse import quote

CONSOLE_URL = "https://tinker.thinkingmachines.ai"


def session_url(session_id: str) -> str:
    """Address a session."""
    return f"{CONSOLE_URL}/sessions/{session_id}"


def training_run_url(training_run_id: str) -> str:
    """Address a training run."""
    return f"{CONSOLE_URL}/training_runs/{training_run_id}"


def checkpoint_url(training_run_id: str, checkpoint_id: str) -> str:
    """Address a checkpoint, such as ``weights/step-10`` of a run."""
    run, checkpoint = quote(training_run_id, safe=""), quote(checkpoint_id, safe="")
    return f"{CONSOLE_URL}/checkpoints/{run}/{checkpoint}"


def playground_url(tinker_path: str) -> str:
    """Address the playground with a sampler checkpoint."""
    return f"{CONSOLE_URL}/playground?mode=checkpoint&checkpoint={quote(tinker_path, safe='')}"
