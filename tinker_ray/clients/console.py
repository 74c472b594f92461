"""Addresses of things in the console of the hosted service. Only that service has one."""

from __future__ import annotations

from urllib.parse import quote, urlencode

CONSOLE = "https://tinker.thinkingmachines.ai"


def sessions_console_url() -> str:
    """The list of sessions."""
    return f"{CONSOLE}/sessions"


def session_console_url(session_id: str) -> str:
    """One session."""
    return f"{CONSOLE}/sessions/{session_id}"


def training_run_console_url(training_run_id: str) -> str:
    """One training run."""
    return f"{CONSOLE}/training_runs/{training_run_id}"


def checkpoint_console_url(training_run_id: str, checkpoint_id: str) -> str:
    """One checkpoint."""
    return (
        f"{CONSOLE}/checkpoints/{quote(training_run_id, safe='')}/{quote(checkpoint_id, safe='')}"
    )


def checkpoint_playground_url(tinker_path: str) -> str:
    """The playground with a checkpoint in it."""
    return f"{CONSOLE}/playground?mode=checkpoint&checkpoint={quote(tinker_path, safe='')}"


def new_api_key_console_url(key_name: str) -> str:
    """The list of API keys, about to make one."""
    return f"{CONSOLE}/keys?{urlencode({'new_key': 'true', 'key_name': key_name})}"


def api_key_console_url(key_id: str) -> str:
    """One API key."""
    return f"{CONSOLE}/keys/{quote(key_id, safe='')}"
