"""The service's endpoints: method, path, traffic class, retries and timeout, one row each.

Knows nothing of HTTP clients. Path parameters are inserted raw, because ids hold ``:`` and
checkpoint ids hold ``/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DEFAULT_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0
INNER_RETRIES = 10
RETRY_BUDGET_S = 300.0
ACK_ONLY_TIMEOUT_S = 5.0
"""For a ``RETRIEVE_FUTURES`` that only reports what was read, and so is answered at once."""


class Traffic(StrEnum):
    """Classes of requests that never wait for each other's connections."""

    SESSION = "session"
    SAMPLE = "sample"
    TRAIN = "train"
    RETRIEVE_PROMISE = "retrieve_promise"
    RETRIEVE_FUTURES = "retrieve_futures"
    TELEMETRY = "telemetry"
    REST_SUPPORT_REDIRECT = "rest_support_redirect"
    AUTH = "auth"


CLIENT_WIDTH: dict[Traffic, int] = {
    Traffic.SESSION: 50,
    Traffic.SAMPLE: 50,
    Traffic.TRAIN: 1,
    Traffic.RETRIEVE_PROMISE: 50,
    Traffic.RETRIEVE_FUTURES: 50,
    Traffic.TELEMETRY: 50,
    Traffic.REST_SUPPORT_REDIRECT: 50,
    Traffic.AUTH: 1,
}
"""Requests that one HTTP client of a traffic class carries at once."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One call of the API.

    Attributes:
        method: HTTP method.
        path: Below the base URL; ``{name}`` parts are filled by :meth:`url_path`.
        traffic: Whose connections it uses.
        retries: Quick repetitions of a failed attempt.
        budget_s: Seconds after the first attempt in which whole rounds of attempts are repeated; 0
            for none.
        timeout_s: Read timeout.
        type_name: The ``type`` discriminator that current clients put into the JSON body.
        backpressure: A 429 is the caller's to handle: the request is never repeated because of it.
        redirect_is_answer: A 3xx is not followed: its ``Location`` is what was asked for.
    """

    method: str
    path: str
    traffic: Traffic = Traffic.TRAIN
    retries: int = INNER_RETRIES
    budget_s: float = RETRY_BUDGET_S
    timeout_s: float = DEFAULT_TIMEOUT_S
    type_name: str | None = None
    backpressure: bool = False
    redirect_is_answer: bool = False

    def url_path(self, **parameters: str) -> str:
        """Fill the path.

        Raises:
            KeyError: A parameter is missing.
        """
        return self.path.format(**parameters)


_V1 = "/api/v1"
_RUN = f"{_V1}/training_runs/{{run_id}}"
_CHECKPOINT = f"{_RUN}/checkpoints/{{checkpoint_id}}"
_SESSION = f"{_V1}/sessions/{{session_id}}"

# --- the service and its settings -----------------------------------------------------------------

HEALTHZ = Endpoint("GET", f"{_V1}/healthz", Traffic.SESSION, budget_s=0)
GET_SERVER_CAPABILITIES = Endpoint("GET", f"{_V1}/get_server_capabilities")
CLIENT_CONFIG = Endpoint("POST", f"{_V1}/client/config", Traffic.SESSION)
CLIENT_DYNAMIC_CONFIG = Endpoint(
    "POST", f"{_V1}/client/dynamic_config", Traffic.SESSION, retries=0, timeout_s=10.0
)
TELEMETRY = Endpoint("POST", f"{_V1}/telemetry", Traffic.TELEMETRY, budget_s=0, timeout_s=5.0)
AUTH_TOKEN = Endpoint("POST", f"{_V1}/auth/token", Traffic.AUTH, budget_s=0)
GET_API_KEY = Endpoint(
    "GET", f"{_V1}/auth/apikey/me", Traffic.AUTH, retries=0, budget_s=0, timeout_s=30.0
)
DELETE_API_KEY = Endpoint(
    "DELETE", f"{_V1}/auth/apikey/me", Traffic.AUTH, retries=0, budget_s=0, timeout_s=30.0
)

# --- sessions -------------------------------------------------------------------------------------

CREATE_SESSION = Endpoint(
    "POST", f"{_V1}/create_session", Traffic.SESSION, budget_s=0, type_name="create_session"
)
SESSION_HEARTBEAT = Endpoint(
    "POST",
    f"{_V1}/session_heartbeat",
    Traffic.SESSION,
    retries=0,
    budget_s=0,
    timeout_s=10.0,
    type_name="session_heartbeat",
)
CREATE_SAMPLING_SESSION = Endpoint(
    "POST",
    f"{_V1}/create_sampling_session",
    Traffic.SESSION,
    budget_s=0,
    type_name="create_sampling_session",
)
JOIN_SAMPLING_SESSION = Endpoint(
    "POST", f"{_V1}/join_sampling_session", Traffic.SESSION, type_name="join_sampling_session"
)
LIST_SESSIONS = Endpoint("GET", f"{_V1}/sessions")
GET_SESSION = Endpoint("GET", _SESSION)
SEARCH_SESSIONS = Endpoint("POST", f"{_V1}/sessions/search")
ASSIGN_SESSION_PROJECT = Endpoint("PUT", f"{_SESSION}/project")
FINISH_SESSION = Endpoint("POST", f"{_SESSION}/finish")
EXPORT_SESSION_TRACE = Endpoint("GET", f"{_SESSION}/trace_export")
GET_SAMPLER = Endpoint("GET", f"{_V1}/samplers/{{sampler_id}}")

# --- sampling and promises ------------------------------------------------------------------------

ASAMPLE = Endpoint(
    "POST",
    f"{_V1}/asample",
    Traffic.SAMPLE,
    retries=0,
    type_name="sample",
    backpressure=True,
)
RETRIEVE_FUTURE = Endpoint(
    "POST",
    f"{_V1}/retrieve_future",
    Traffic.RETRIEVE_PROMISE,
    retries=0,
    budget_s=0,
    timeout_s=45.0,
)
RETRIEVE_FUTURES = Endpoint(
    "POST",
    f"{_V1}/retrieve_futures",
    Traffic.RETRIEVE_FUTURES,
    retries=0,
    budget_s=0,
    timeout_s=45.0,
)
CANCEL_FUTURE = Endpoint(
    "POST", f"{_V1}/cancel_future", Traffic.RETRIEVE_PROMISE, retries=0, timeout_s=30.0
)

# --- training -------------------------------------------------------------------------------------

CREATE_MODEL = Endpoint("POST", f"{_V1}/create_model", budget_s=0, type_name="create_model")
GET_INFO = Endpoint("POST", f"{_V1}/get_info", type_name="get_info")
UNLOAD_MODEL = Endpoint("POST", f"{_V1}/unload_model", budget_s=0, type_name="unload_model")
FORWARD = Endpoint("POST", f"{_V1}/forward")
FORWARD_BACKWARD = Endpoint("POST", f"{_V1}/forward_backward")
OPTIM_STEP = Endpoint("POST", f"{_V1}/optim_step", type_name="optim_step")
CREATE_CUSTOM_LOSS = Endpoint("POST", f"{_V1}/create_custom_loss", type_name="create_custom_loss")
SAVE_WEIGHTS = Endpoint("POST", f"{_V1}/save_weights", retries=0, type_name="save_weights")
LOAD_WEIGHTS = Endpoint("POST", f"{_V1}/load_weights", type_name="load_weights")
SAVE_WEIGHTS_FOR_SAMPLER = Endpoint(
    "POST", f"{_V1}/save_weights_for_sampler", retries=0, type_name="save_weights_for_sampler"
)
SAVE_WEIGHTS_EXTERNAL = Endpoint(
    "POST", f"{_V1}/save_weights_external", retries=0, type_name="save_weights_external"
)

# --- runs and checkpoints -------------------------------------------------------------------------

WEIGHTS_INFO = Endpoint("POST", f"{_V1}/weights_info")
COPY_WEIGHTS = Endpoint("POST", f"{_V1}/copy_weights")
LIST_TRAINING_RUNS = Endpoint("GET", f"{_V1}/training_runs")
GET_TRAINING_RUN = Endpoint("GET", _RUN)
LIST_CHECKPOINTS = Endpoint("GET", f"{_RUN}/checkpoints")
LIST_USER_CHECKPOINTS = Endpoint("GET", f"{_V1}/checkpoints")
GET_CHECKPOINT_ARCHIVE = Endpoint(
    "GET", f"{_CHECKPOINT}/archive", budget_s=0, redirect_is_answer=True
)
GET_EXTERNAL_WEIGHTS_URLS = Endpoint("GET", f"{_CHECKPOINT}/external_weights_urls")
DELETE_CHECKPOINT = Endpoint("DELETE", _CHECKPOINT)
PUBLISH_CHECKPOINT = Endpoint("POST", f"{_CHECKPOINT}/publish")
UNPUBLISH_CHECKPOINT = Endpoint("DELETE", f"{_CHECKPOINT}/publish")
SET_CHECKPOINT_TTL = Endpoint("PUT", f"{_CHECKPOINT}/ttl")

# --- administration -------------------------------------------------------------------------------

GET_AUDIT_LOG = Endpoint("GET", f"{_V1}/audit", Traffic.REST_SUPPORT_REDIRECT)
GET_BILLING_USAGE = Endpoint("GET", f"{_V1}/billing/usage/events")
GET_CHECKPOINT_STORAGE = Endpoint("GET", f"{_V1}/billing/usage/checkpoints/current")
