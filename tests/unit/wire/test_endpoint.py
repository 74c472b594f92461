from __future__ import annotations

import pytest

from tinker_ray.wire import endpoint
from tinker_ray.wire.endpoint import CLIENT_WIDTH, Endpoint, Traffic

ENDPOINTS = {
    f"{item.method} {item.path.removeprefix('/api/v1/')}": item
    for item in vars(endpoint).values()
    if isinstance(item, Endpoint)
}
RUN = "training_runs/{run_id}"
CHECKPOINT = f"{RUN}/checkpoints/{{checkpoint_id}}"
SESSION = "sessions/{session_id}"
CONTRACT = {
    "GET healthz": ("session", 10, 0, 60),
    "GET get_server_capabilities": ("train", 10, 300, 60),
    "POST create_session": ("session", 10, 0, 60),
    "POST session_heartbeat": ("session", 0, 0, 10),
    "POST create_sampling_session": ("session", 10, 0, 60),
    "POST join_sampling_session": ("session", 10, 300, 60),
    "POST client/config": ("session", 10, 300, 60),
    "POST client/dynamic_config": ("session", 0, 300, 10),
    "POST asample": ("sample", 0, 300, 60),
    "POST forward": ("train", 10, 300, 60),
    "POST forward_backward": ("train", 10, 300, 60),
    "POST optim_step": ("train", 10, 300, 60),
    "POST create_model": ("train", 10, 0, 60),
    "POST get_info": ("train", 10, 300, 60),
    "POST unload_model": ("train", 10, 0, 60),
    "POST save_weights": ("train", 0, 300, 60),
    "POST load_weights": ("train", 10, 300, 60),
    "POST save_weights_for_sampler": ("train", 0, 300, 60),
    "POST save_weights_external": ("train", 0, 300, 60),
    "POST retrieve_future": ("retrieve_promise", 0, 0, 45),
    "POST retrieve_futures": ("retrieve_futures", 0, 0, 45),
    "POST cancel_future": ("retrieve_promise", 0, 300, 30),
    "POST copy_weights": ("train", 10, 300, 60),
    "POST create_custom_loss": ("train", 10, 300, 60),
    "POST weights_info": ("train", 10, 300, 60),
    "GET training_runs": ("train", 10, 300, 60),
    f"GET {RUN}": ("train", 10, 300, 60),
    f"GET {RUN}/checkpoints": ("train", 10, 300, 60),
    "GET checkpoints": ("train", 10, 300, 60),
    f"GET {CHECKPOINT}/archive": ("train", 10, 0, 60),
    f"GET {CHECKPOINT}/external_weights_urls": ("train", 10, 300, 60),
    f"DELETE {CHECKPOINT}": ("train", 10, 300, 60),
    f"POST {CHECKPOINT}/publish": ("train", 10, 300, 60),
    f"DELETE {CHECKPOINT}/publish": ("train", 10, 300, 60),
    f"PUT {CHECKPOINT}/ttl": ("train", 10, 300, 60),
    "GET sessions": ("train", 10, 300, 60),
    f"GET {SESSION}": ("train", 10, 300, 60),
    f"PUT {SESSION}/project": ("train", 10, 300, 60),
    f"POST {SESSION}/finish": ("train", 10, 300, 60),
    f"GET {SESSION}/trace_export": ("train", 10, 300, 60),
    "POST sessions/search": ("train", 10, 300, 60),
    "GET samplers/{sampler_id}": ("train", 10, 300, 60),
    "POST telemetry": ("telemetry", 10, 0, 5),
    "POST auth/token": ("auth", 10, 0, 60),
    "GET auth/apikey/me": ("auth", 0, 0, 30),
    "DELETE auth/apikey/me": ("auth", 0, 0, 30),
    "GET audit": ("rest_support_redirect", 10, 300, 60),
    "GET billing/usage/events": ("train", 10, 300, 60),
    "GET billing/usage/checkpoints/current": ("train", 10, 300, 60),
}
"""Pool, inner retries, seconds of outer retries, read timeout."""


@pytest.mark.parametrize("call", CONTRACT)
def test_an_endpoint_is_called_as_the_contract_says(call: str) -> None:
    item = ENDPOINTS[call]
    assert CONTRACT[call] == (str(item.traffic), item.retries, item.budget_s, item.timeout_s)


def test_there_is_no_endpoint_beside_the_contract() -> None:
    assert set(CONTRACT) == set(ENDPOINTS)


def test_only_samples_hand_their_429_on() -> None:
    assert ["POST asample"] == [call for call, item in ENDPOINTS.items() if item.backpressure]


def test_only_the_redirect_to_an_archive_is_the_answer_itself() -> None:
    found = [call for call, item in ENDPOINTS.items() if item.redirect_is_answer]
    assert [f"GET {CHECKPOINT}/archive"] == found


def test_a_discriminator_is_the_name_of_its_call() -> None:
    named = {
        call.removeprefix("POST "): item.type_name
        for call, item in ENDPOINTS.items()
        if item.type_name is not None
    }
    assert named == {"asample": "sample"} | {name: name for name in named if name != "asample"}


def test_training_and_credentials_have_a_connection_each() -> None:
    widths = {str(traffic): width for traffic, width in CLIENT_WIDTH.items()}
    assert {"train": 1, "auth": 1} == {t: width for t, width in widths.items() if width != 50}
    assert set(Traffic) == set(CLIENT_WIDTH)


def test_path_parameters_are_inserted_raw() -> None:
    path = endpoint.DELETE_CHECKPOINT.url_path(run_id="S1:train:0", checkpoint_id="weights/c 1")
    assert "/api/v1/training_runs/S1:train:0/checkpoints/weights/c 1" == path


def test_a_missing_path_parameter_is_an_error() -> None:
    with pytest.raises(KeyError, match="run_id"):
        endpoint.GET_TRAINING_RUN.url_path()
