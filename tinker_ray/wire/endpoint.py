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


class Traffic(StrEnum):
    """Classes of requests that never wait for each other's connections."""

    SESSION = "session"
    SAMPLE = "sample"
    TRAIN = "train"
    RETRIEVE_PROMISE = "retrieve_promise"
    TELEMETRY = "telemetry"


CLIENT_WIDTH: dict[Traffic, int] = {
    Traffic.SESSION: 50,
    Traffic.SAMPLE: 50,
    Traffic.TRAIN: 1,
    Traffic.RETRIEVE_PROMISE: 50,
    Traffic.TELEMETRY: 50,
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
    """

    method: str
    path: str
    traffic: Traffic = Traffic.TRAIN
    retries: int = INNER_RETRIES
    budget_s: float = RETRY_BUDGET_S
    timeout_s: float = DEFAULT_TIMEOUT_S
    type_name: str | None = None
    backpressure: bool = False

    def url_path(self, **parameters: str) -> str:
        """Fill the path.

        Raises:
            KeyError: A parameter is missing.
        """
        return self.path.format(**parameters)


_V1 = "/api/v1"

GET_SERVER_CAPABILITIES = Endpoint("GET", f"{_V1}/get_server_capabilities")
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
FINISH_SESSION = Endpoint("POST", f"{_V1}/sessions/{{session_id}}/finish")
CREATE_SAMPLING_SESSION = Endpoint(
    "POST",
    f"{_V1}/create_sampling_session",
    Traffic.SESSION,
    budget_s=0,
    type_name="create_sampling_session",
)
CLIENT_CONFIG = Endpoint("POST", f"{_V1}/client/config", Traffic.SESSION)
ASAMPLE = Endpoint(
    "POST",
    f"{_V1}/asample",
    Traffic.SAMPLE,
    retries=0,
    type_name="sample",
    backpressure=True,
)
FORWARD = Endpoint("POST", f"{_V1}/forward")
FORWARD_BACKWARD = Endpoint("POST", f"{_V1}/forward_backward")
OPTIM_STEP = Endpoint("POST", f"{_V1}/optim_step", type_name="optim_step")
CREATE_MODEL = Endpoint("POST", f"{_V1}/create_model", budget_s=0, type_name="create_model")
GET_INFO = Endpoint("POST", f"{_V1}/get_info", type_name="get_info")
SAVE_WEIGHTS = Endpoint("POST", f"{_V1}/save_weights", retries=0, type_name="save_weights")
LOAD_WEIGHTS = Endpoint("POST", f"{_V1}/load_weights", type_name="load_weights")
SAVE_WEIGHTS_FOR_SAMPLER = Endpoint(
    "POST", f"{_V1}/save_weights_for_sampler", retries=0, type_name="save_weights_for_sampler"
)
RETRIEVE_FUTURE = Endpoint(
    "POST",
    f"{_V1}/retrieve_future",
    Traffic.RETRIEVE_PROMISE,
    retries=0,
    budget_s=0,
    timeout_s=45.0,
)
CANCEL_FUTURE = Endpoint(
    "POST", f"{_V1}/cancel_future", Traffic.RETRIEVE_PROMISE, retries=0, timeout_s=30.0
)
WEIGHTS_INFO = Endpoint("POST", f"{_V1}/weights_info")
LIST_TRAINING_RUNS = Endpoint("GET", f"{_V1}/training_runs")
GET_TRAINING_RUN = Endpoint("GET", f"{_V1}/training_runs/{{run_id}}")
LIST_CHECKPOINTS = Endpoint("GET", f"{_V1}/training_runs/{{run_id}}/checkpoints")
DELETE_CHECKPOINT = Endpoint(
    "DELETE", f"{_V1}/training_runs/{{run_id}}/checkpoints/{{checkpoint_id}}"
)
LIST_USER_CHECKPOINTS = Endpoint("GET", f"{_V1}/checkpoints")
LIST_SESSIONS = Endpoint("GET", f"{_V1}/sessions")
GET_SESSION = Endpoint("GET", f"{_V1}/sessions/{{session_id}}")
GET_SAMPLER = Endpoint("GET", f"{_V1}/samplers/{{sampler_id}}")
