"""What the compatibility table says that no code does: generations of endpoints, differences.

The names of upstream's clients, types, commands and exports are recorded from its releases; this
module holds only what is neither recorded there nor found here.
"""

from __future__ import annotations

from dataclasses import dataclass

SEED = "0.6.3"
CURRENT = "0.38.0"
BOTH = (SEED, CURRENT)


@dataclass(frozen=True, slots=True)
class UpstreamEndpoint:
    """An endpoint that upstream's client calls.

    Attributes:
        method: HTTP's.
        path: Below ``/api/v1``; parameters in braces.
        releases: Whose client calls it.
        note: A difference on purpose.
    """

    method: str
    path: str
    releases: tuple[str, ...] = BOTH
    note: str = ""


_RUN = "/training_runs/{run_id}"
_CHECKPOINT = f"{_RUN}/checkpoints/{{checkpoint_id}}"
_NEW = (CURRENT,)
_OLD = (SEED,)

_AGAIN = "succeeds again; upstream documents a 409, which its clients repeat for five minutes"

ENDPOINTS = (
    UpstreamEndpoint("GET", "/healthz", note="no public client calls it, upstream or here"),
    UpstreamEndpoint("GET", "/get_server_capabilities"),
    UpstreamEndpoint("POST", "/create_session"),
    UpstreamEndpoint("POST", "/session_heartbeat"),
    UpstreamEndpoint("POST", "/create_sampling_session"),
    UpstreamEndpoint("POST", "/join_sampling_session", _NEW),
    UpstreamEndpoint("POST", "/client/config", _NEW),
    UpstreamEndpoint("POST", "/client/dynamic_config", _NEW),
    UpstreamEndpoint("POST", "/asample"),
    UpstreamEndpoint("POST", "/forward", _OLD),
    UpstreamEndpoint("POST", "/forward_backward"),
    UpstreamEndpoint("POST", "/optim_step"),
    UpstreamEndpoint("POST", "/create_model"),
    UpstreamEndpoint("POST", "/get_info"),
    UpstreamEndpoint(
        "POST", "/unload_model", _OLD, "only S's low-level client calls it; nothing does here"
    ),
    UpstreamEndpoint("POST", "/save_weights"),
    UpstreamEndpoint("POST", "/load_weights"),
    UpstreamEndpoint("POST", "/save_weights_for_sampler"),
    UpstreamEndpoint("POST", "/save_weights_external", _NEW),
    UpstreamEndpoint("POST", "/retrieve_future"),
    UpstreamEndpoint("POST", "/retrieve_futures", _NEW),
    UpstreamEndpoint("POST", "/cancel_future", _NEW),
    UpstreamEndpoint("POST", "/copy_weights", _NEW),
    UpstreamEndpoint("POST", "/create_custom_loss", _NEW),
    UpstreamEndpoint("POST", "/weights_info"),
    UpstreamEndpoint("GET", "/training_runs"),
    UpstreamEndpoint("GET", _RUN),
    UpstreamEndpoint("GET", f"{_RUN}/checkpoints"),
    UpstreamEndpoint("GET", "/checkpoints"),
    UpstreamEndpoint("GET", f"{_CHECKPOINT}/archive", _OLD),
    UpstreamEndpoint("GET", f"{_CHECKPOINT}/external_weights_urls", _NEW),
    UpstreamEndpoint("DELETE", _CHECKPOINT),
    UpstreamEndpoint("POST", f"{_CHECKPOINT}/publish", note=_AGAIN),
    UpstreamEndpoint("DELETE", f"{_CHECKPOINT}/publish", note=_AGAIN),
    UpstreamEndpoint("PUT", f"{_CHECKPOINT}/ttl", _NEW),
    UpstreamEndpoint("GET", "/sessions"),
    UpstreamEndpoint("GET", "/sessions/{session_id}"),
    UpstreamEndpoint("PUT", "/sessions/{session_id}/project", _NEW),
    UpstreamEndpoint("POST", "/sessions/{session_id}/finish", _NEW),
    UpstreamEndpoint("GET", "/sessions/{session_id}/trace_export", _NEW),
    UpstreamEndpoint("POST", "/sessions/search", _NEW),
    UpstreamEndpoint("GET", "/samplers/{sampler_id}"),
    UpstreamEndpoint("POST", "/telemetry"),
    UpstreamEndpoint("POST", "/auth/token", _NEW),
    UpstreamEndpoint("GET", "/auth/apikey/me", _NEW),
    UpstreamEndpoint("DELETE", "/auth/apikey/me", _NEW),
    UpstreamEndpoint("GET", "/audit", _NEW, note="the engine tells a key what is its own"),
    UpstreamEndpoint("GET", "/billing/usage/events", _NEW, note="the engine has no prices"),
    UpstreamEndpoint("GET", "/billing/usage/checkpoints/current", _NEW),
)

ENVIRONMENT: dict[str, tuple[str, ...]] = {
    "TINKER_API_KEY": BOTH,
    "TINKER_BASE_URL": BOTH,
    "TINKER_TAGS": BOTH,
    "TINKER_TELEMETRY": BOTH,
    "TINKER_LOG": BOTH,
    "TINKER_FEATURE_GATES": BOTH,
    "TINKER_PROJECT_ID": _NEW,
    "TINKER_CREDENTIAL_CMD": _NEW,
    "CLOUDFLARE_ACCESS_CLIENT_ID": BOTH,
    "CLOUDFLARE_ACCESS_CLIENT_SECRET": BOTH,
}
"""Variables that upstream's SDK reads, and in which releases."""

DIFFERENCES: dict[str, str] = {
    "TINKER_FEATURE_GATES": "upstream stores it, without effect: nothing reads it here",
    "TINKER_LOG": "set up when the first client is made, not at the import",
    "TrainingClient.forward_backward_custom": (
        "the metrics are N's: `loss:sum` is the loss itself, `surrogate_loss:sum` what the service "
        "was sent; S calls the latter `loss:sum`"
    ),
    "auth whoami": "of a plain key, the service is asked whose it is",
    "auth status": "an embedded engine is told to ask for no credentials",
    "checkpoint delete": "ends with 1 if one of them could not be deleted",
    "checkpoint download": (
        "archives, of sampler checkpoints too, where the service gives them out; else as N"
    ),
    "checkpoint info": "JSON has `base_model`, too",
    "checkpoint push-hf": "the page that is written loads the adapter through PEFT",
    "version": "prints the version of this package",
}
"""What is otherwise here, or is not here, on purpose; by ``Class.member``, name or command."""
