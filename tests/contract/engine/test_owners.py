"""API keys: what each owns, what others see of it, and how long a credential works."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.engine import MODEL, EngineClient, batch, sample_body
from tests.fakes.running_engine import Running, prompt_logprobs, save
from tinker_ray.config import Secret
from tinker_ray.engine.access.api_key import ApiKey

if TYPE_CHECKING:
    import httpx

ANNA, BELA = "tml-secret-of-anna", "tml-secret-of-bela"
KEYS = [
    ApiKey(Secret(ANNA), "anna", "apples"),
    ApiKey(Secret("tml-annas-other"), "anna"),
    ApiKey(Secret(BELA), "bela"),
]


@pytest.fixture
async def anna(running: Running) -> EngineClient:
    running.keys = KEYS
    await running.start()
    return running.client(ANNA)


@pytest.fixture
async def bela(running: Running, anna: EngineClient) -> EngineClient:
    return running.client(BELA)


@dataclass
class Things:
    """What one owner made."""

    model_id: str
    path: str
    sampler_id: str
    promise: dict[str, Any]
    sample: dict[str, Any]


async def make(client: EngineClient) -> Things:
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "a")
    sampler_id = await client.sampler()
    promise = await client.post("optim_step", {"model_id": model_id, "seq_id": 2})
    sample = await client.post("asample", sample_body(sampler_id))
    await client.result(promise)
    await client.result(sample)
    return Things(model_id, path, sampler_id, promise, sample)


async def test_what_one_key_made_is_not_there_for_another(
    anna: EngineClient, bela: EngineClient
) -> None:
    made = await make(anna)
    run, session = made.model_id, anna.session_id
    checkpoint = f"training_runs/{run}/checkpoints/weights/a"
    requests: list[tuple[str, str, dict[str, Any] | None, int]] = [
        ("GET", f"training_runs/{run}", None, 404),
        ("GET", f"training_runs/{run}?access_scope=accessible", None, 404),
        ("GET", f"training_runs/{run}/checkpoints", None, 404),
        ("GET", f"sessions/{session}", None, 404),
        ("GET", f"sessions/{session}/trace_export", None, 404),
        ("GET", f"samplers/{made.sampler_id}", None, 404),
        ("GET", f"{checkpoint}/archive", None, 404),
        ("GET", f"{checkpoint}/external_weights_urls", None, 404),
        ("DELETE", checkpoint, None, 404),
        ("POST", f"{checkpoint}/publish", None, 404),
        ("DELETE", f"{checkpoint}/publish", None, 404),
        ("PUT", f"{checkpoint}/ttl", {"ttl_seconds": 3600}, 404),
        ("PUT", f"sessions/{session}/project", {"project_id": "mine"}, 404),
        ("POST", f"sessions/{session}/finish", {}, 404),
        ("POST", "session_heartbeat", {"session_id": session}, 404),
        ("POST", "get_info", {"model_id": run}, 404),
        ("POST", "unload_model", {"model_id": run}, 404),
        ("POST", "optim_step", {"model_id": run, "seq_id": 3}, 404),
        ("POST", "save_weights", {"model_id": run, "path": "b", "seq_id": 3}, 404),
        ("POST", "save_weights_external", {"model_id": run, "path": "b", "seq_id": 3}, 404),
        ("POST", "save_weights_for_sampler", {"model_id": run, "path": "b", "seq_id": 3}, 404),
        ("POST", "load_weights", {"model_id": run, "path": made.path, "optimizer": True}, 404),
        (
            "POST",
            "forward_backward",
            {"forward_backward_input": batch(), "model_id": run, "seq_id": 3},
            404,
        ),
        ("POST", "weights_info", {"tinker_path": made.path}, 404),
        ("POST", "copy_weights", {"source_path": made.path, "destination_project_id": "p"}, 404),
        ("POST", "asample", sample_body(made.sampler_id, 5), 404),
        ("POST", "join_sampling_session", {"sampling_session_id": made.sampler_id}, 404),
        (
            "POST",
            "retrieve_futures",
            {"target": {"sampling_session_id": made.sampler_id}, "timeout": 0},
            404,
        ),
        ("POST", "retrieve_future", {"request_id": made.promise["request_id"]}, 404),
        ("POST", "retrieve_future", {"request_id": made.sample["request_id"]}, 410),
        (
            "POST",
            "create_model",
            {
                "session_id": session,
                "model_seq_id": 9,
                "base_model": MODEL,
                "lora_config": {"rank": 4},
            },
            404,
        ),
        (
            "POST",
            "create_sampling_session",
            {"session_id": session, "sampling_session_seq_id": 9, "base_model": MODEL},
            404,
        ),
    ]
    for method, path, body, expected in requests:
        response = await bela.http.request(method, f"/api/v1/{path}", json=body)
        assert (method, path, expected) == (method, path, response.status_code), response.text
    info = await anna.get(f"training_runs/{run}")
    assert info["last_checkpoint"]["tinker_path"] == made.path
    assert "metrics" in await anna.result(
        await anna.post("optim_step", {"model_id": run, "seq_id": 3})
    )


async def test_lists_and_searches_hold_ones_own(anna: EngineClient, bela: EngineClient) -> None:
    await make(anna)
    runs = await bela.get("training_runs")
    assert (runs["training_runs"], runs["cursor"]["total_count"]) == ([], 0)
    assert (await bela.get("checkpoints"))["checkpoints"] == []
    assert await bela.get("sessions") == {"sessions": []}
    for owner in ({"type": "accessible"}, {"type": "user", "owner_urns": ["anna"]}):
        assert (await bela.post("sessions/search", {"owner": owner}))["sessions"] == []
    assert (await bela.get("audit"))["entries"] == []
    assert (await bela.get("billing/usage/checkpoints/current"))["data"] == []


async def test_cancelling_anothers_sample_changes_nothing(
    anna: EngineClient, bela: EngineClient
) -> None:
    sampler_id = await anna.sampler()
    body = sample_body(sampler_id, num_samples=32, sampling_params={"max_tokens": 60, "stop": []})
    promise = await anna.post("asample", body)
    assert await bela.post("cancel_future", {"request_id": promise["request_id"]}) == {}
    assert len((await anna.result(promise))["sequences"]) == 32


async def test_keys_of_one_owner_share_everything(running: Running, anna: EngineClient) -> None:
    made = await make(anna)
    other = running.client("tml-annas-other")
    run = await other.get(f"training_runs/{made.model_id}")
    assert (run["training_run_id"], run["model_owner"]) == (made.model_id, "anna")


async def test_a_key_gives_its_project_to_sessions_that_name_none(anna: EngineClient) -> None:
    await anna.open_session()
    (found,) = (await anna.post("sessions/search", {}))["sessions"]
    assert (found["project_id"], found["owner"]) == ("apples", "anna")


async def test_a_published_checkpoint_is_read_by_everybody_until_it_is_private_again(
    anna: EngineClient, bela: EngineClient
) -> None:
    made = await make(anna)
    await save(anna, made.model_id, 3, "private")
    url = f"training_runs/{made.model_id}/checkpoints/weights/a/publish"
    assert await anna.post(url, {}) == {}
    assert await anna.post(url, {}) == {}
    assert (await bela.post("weights_info", {"tinker_path": made.path}))["base_model"] == MODEL
    listed = await bela.get(f"training_runs/{made.model_id}/checkpoints")
    assert [item["checkpoint_id"] for item in listed["checkpoints"]] == ["weights/a"]
    shared = await bela.get(f"training_runs/{made.model_id}?access_scope=accessible")
    assert (shared["model_owner"], shared["last_checkpoint"]["public"]) == ("anna", True)
    await bela.get(f"training_runs/{made.model_id}", status=404)
    assert await prompt_logprobs(bela, await bela.sampler(model_path=made.path))
    copied = await bela.post(
        "copy_weights", {"source_path": made.path, "destination_project_id": "p"}
    )
    body = {
        "path": made.path,
        "optimizer": True,
        "session_id": bela.session_id,
        "model_seq_id": bela.count("model"),
    }
    assert "model_id" in await bela.result(await bela.post("load_weights", body))
    response = await anna.http.delete(f"/api/v1/{url}")
    assert response.status_code == 200
    await bela.post("weights_info", {"tinker_path": made.path}, status=404)
    assert await bela.post("weights_info", {"tinker_path": copied["tinker_path"]})


@pytest.mark.parametrize("with_token", [False, True])
async def test_weights_are_read_with_a_credential_of_their_owner(
    anna: EngineClient, bela: EngineClient, *, with_token: bool
) -> None:
    made = await make(anna)
    token = (await anna.post("auth/token", {}))["jwt"] if with_token else ANNA
    await bela.open_session()
    body = {
        "path": made.path,
        "optimizer": True,
        "session_id": bela.session_id,
        "model_seq_id": bela.count("model"),
        "weights_access_token": token,
    }
    assert "model_id" in await bela.result(await bela.post("load_weights", body))
    response = await bela.http.post(
        "/api/v1/copy_weights",
        json={"source_path": made.path, "destination_project_id": "p"},
        headers={"X-Tinker-Weights-Access-Token": token},
    )
    assert response.status_code == 200
    wrong = {**body, "weights_access_token": "tml-guessed", "model_seq_id": 5}
    answer = await bela.post("load_weights", wrong, status=403)
    assert answer["field"] == "weights_access_token"
    assert "tml-guessed" not in json.dumps(answer)


def claims(jwt: str) -> dict[str, Any]:
    payload = jwt.split(".")[1]
    parsed: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return parsed


async def answer_for(client: EngineClient, credential: str) -> httpx.Response:
    return await client.http.get("/api/v1/sessions", headers={"X-API-Key": credential})


async def test_a_token_stands_for_its_key_for_an_hour(running: Running, anna: EngineClient) -> None:
    jwt = (await anna.post("auth/token", {}))["jwt"]
    told = claims(jwt)
    assert (told["sub"], told["org_id"], told["exp"] - told["iat"]) == ("anna", "engine", 3600)
    await anna.open_session()
    response = await answer_for(running.client(), jwt)
    assert response.json() == {"sessions": [anna.session_id]}
    running.skew_s += 3601
    refused = await answer_for(running.client(), jwt)
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    plain = await answer_for(running.client(), "tml-guessed")
    assert plain.status_code == 401
    assert "www-authenticate" not in plain.headers


async def test_a_token_for_a_token_ends_with_it(running: Running, anna: EngineClient) -> None:
    jwt = (await anna.post("auth/token", {}))["jwt"]
    running.skew_s += 600
    again = (await running.client(jwt).post("auth/token", {}))["jwt"]
    assert again != jwt
    assert claims(again)["exp"] == claims(jwt)["exp"]


async def test_a_forged_token_is_refused(running: Running, anna: EngineClient) -> None:
    jwt = (await anna.post("auth/token", {}))["jwt"]
    header, payload, signature = jwt.split(".")
    forged = base64.urlsafe_b64encode(
        json.dumps({**claims(jwt), "sub": "bela", "key_id": 3}).encode()
    ).decode()
    for text in (f"{header}.{forged}.{signature}", f"{header}.{payload}.", f"{header}.{payload}"):
        assert (await answer_for(running.client(), text)).status_code == 401


async def test_a_deleted_key_lets_nobody_in_again(running: Running, anna: EngineClient) -> None:
    jwt = (await anna.post("auth/token", {}))["jwt"]
    told = await anna.get("auth/apikey/me")
    assert (told["name"], told["key_id"]) == ("anna", 1)
    assert (await anna.http.delete("/api/v1/auth/apikey/me")).status_code == 200
    assert (await answer_for(running.client(), ANNA)).status_code == 401
    assert (await answer_for(running.client(), jwt)).status_code == 401
    (entry,) = (await running.client("tml-annas-other").get("audit"))["entries"]
    assert entry["event"] == "organization_api_key_deleted"
    await running.restart()
    assert running.host.admission.revoked_owners == ["anna"]
    assert (await answer_for(running.client(), ANNA)).status_code == 401
    assert (await answer_for(running.client(), BELA)).status_code == 200


async def test_without_keys_everybody_is_the_one_owner(client: EngineClient) -> None:
    model_id = await client.create_model()
    assert (await client.get(f"training_runs/{model_id}"))["model_owner"] == "local"
    assert (await client.get("auth/apikey/me"))["key_id"] == 0
    assert (await client.http.delete("/api/v1/auth/apikey/me")).status_code == 400
    assert claims((await client.post("auth/token", {}))["jwt"])["sub"] == "local"


async def test_no_key_is_written_anywhere(running: Running, anna: EngineClient) -> None:
    await make(anna)
    await anna.post("telemetry", {"events": [], "session_id": "s"})
    await anna.post("auth/token", {})
    await running.stop()
    files = [path for path in running.data.rglob("*") if path.is_file()]
    assert any(path.name == "ledger.sqlite" for path in files)
    for path in files:
        content = path.read_bytes()
        assert not [key for key in KEYS if key.secret.reveal().encode() in content], path
    assert (running.data / "secret").stat().st_mode & 0o077 == 0
