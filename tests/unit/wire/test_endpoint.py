from __future__ import annotations

import pytest

from tinker_ray.wire import endpoint
from tinker_ray.wire.endpoint import CLIENT_WIDTH, Endpoint, Traffic

ENDPOINTS = {
    item.path.removeprefix("/api/v1/"): item
    for item in vars(endpoint).values()
    if isinstance(item, Endpoint)
}
CONTRACT = {
    "get_server_capabilities": ("GET", "train", 10, 300, 60),
    "create_session": ("POST", "session", 10, 0, 60),
    "session_heartbeat": ("POST", "session", 0, 0, 10),
    "create_sampling_session": ("POST", "session", 10, 0, 60),
    "asample": ("POST", "sample", 0, 300, 60),
    "forward": ("POST", "train", 10, 300, 60),
    "forward_backward": ("POST", "train", 10, 300, 60),
    "optim_step": ("POST", "train", 10, 300, 60),
    "create_model": ("POST", "train", 10, 0, 60),
    "get_info": ("POST", "train", 10, 300, 60),
    "save_weights": ("POST", "train", 0, 300, 60),
    "load_weights": ("POST", "train", 10, 300, 60),
    "save_weights_for_sampler": ("POST", "train", 0, 300, 60),
    "retrieve_future": ("POST", "retrieve_promise", 0, 0, 45),
    "cancel_future": ("POST", "retrieve_promise", 0, 300, 30),
    "weights_info": ("POST", "train", 10, 300, 60),
    "training_runs": ("GET", "train", 10, 300, 60),
    "training_runs/{run_id}": ("GET", "train", 10, 300, 60),
    "training_runs/{run_id}/checkpoints": ("GET", "train", 10, 300, 60),
    "training_runs/{run_id}/checkpoints/{checkpoint_id}": ("DELETE", "train", 10, 300, 60),
    "checkpoints": ("GET", "train", 10, 300, 60),
    "sessions": ("GET", "train", 10, 300, 60),
    "sessions/{session_id}": ("GET", "train", 10, 300, 60),
    "sessions/{session_id}/finish": ("POST", "train", 10, 300, 60),
    "samplers/{sampler_id}": ("GET", "train", 10, 300, 60),
}
"""Method, pool, inner retries, seconds of outer retries, read timeout."""


@pytest.mark.parametrize("path", CONTRACT)
def test_an_endpoint_is_called_as_the_contract_says(path: str) -> None:
    item = ENDPOINTS[path]
    assert CONTRACT[path] == (
        item.method,
        str(item.traffic),
        item.retries,
        item.budget_s,
        item.timeout_s,
    )


def test_only_samples_hand_their_429_on() -> None:
    assert ["asample"] == [path for path, item in ENDPOINTS.items() if item.backpressure]


def test_training_requests_have_a_connection_each() -> None:
    assert {"train": 1} == {
        str(traffic): width for traffic, width in CLIENT_WIDTH.items() if width != 50
    }
    assert set(Traffic) == set(CLIENT_WIDTH)


def test_path_parameters_are_inserted_raw() -> None:
    path = endpoint.DELETE_CHECKPOINT.url_path(run_id="S1:train:0", checkpoint_id="weights/c 1")
    assert "/api/v1/training_runs/S1:train:0/checkpoints/weights/c 1" == path


def test_a_missing_path_parameter_is_an_error() -> None:
    with pytest.raises(KeyError, match="run_id"):
        endpoint.GET_TRAINING_RUN.url_path()
