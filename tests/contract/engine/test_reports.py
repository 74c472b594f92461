"""Reports of what was used."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.engine import MODEL, sample_body
from tests.fakes.running_engine import save, train

if TYPE_CHECKING:
    from tests.fakes.engine import EngineClient
    from tests.fakes.running_engine import Running


def hour(offset: int = 0) -> datetime:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return now + timedelta(hours=offset)


async def usage(client: EngineClient, start: datetime, end: datetime) -> dict[str, Any]:
    query = {"starting_on": start.isoformat(), "ending_before": end.isoformat()}
    response = await client.http.get("/api/v1/billing/usage/events", params=query)
    assert response.status_code == 200, response.text
    parsed: dict[str, Any] = response.json()
    return parsed


def quantities(told: dict[str, Any]) -> dict[str, int]:
    return {
        event["event_info"]["type"]: event["event_info"].get("token_count")
        or event["event_info"].get("count")
        for event in told["data"]
        if event["event_info"]["type"] != "storage"
    }


async def test_tokens_and_checkpoints_are_counted_by_the_hour(
    running: Running, client: EngineClient
) -> None:
    session = {"tags": [], "user_metadata": {"team": "rl"}, "sdk_version": "0", "project_id": "p"}
    client.session_id = (await client.post("create_session", session))["session_id"]
    model_id = await client.create_model()
    await client.result(await train(client, model_id, 1))
    await client.result(await train(client, model_id, 2))
    await save(client, model_id, 3, "a")
    body = sample_body(await client.sampler(), num_samples=3)
    await client.result(await client.post("asample", body))
    told = await usage(client, hour(), hour(1))
    assert quantities(told) == {
        "training": 16,
        "sampling_prefill": 3,
        "sampling_sample": 12,
        "checkpoint": 1,
    }
    tokens = [event for event in told["data"] if event["event_info"]["type"] == "training"]
    assert [(event["base_model"], event["project_id"]) for event in tokens] == [(MODEL, "p")]
    assert told["sessions"] == {client.session_id: {"user_metadata": {"team": "rl"}}}
    assert (await usage(client, hour(-2), hour(-1)))["data"] == []
    client = await running.restart()
    assert quantities(await usage(client, hour(), hour(1)))["training"] == 16


async def test_what_failed_is_not_counted(hasty: EngineClient) -> None:
    model_id = await hasty.create_model()
    held = await train(hasty, model_id, 5)
    assert "error" in await hasty.result(held)
    assert quantities(await usage(hasty, hour(), hour(1))) == {}


async def test_storage_is_counted_while_it_lasts(running: Running, client: EngineClient) -> None:
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "a")
    size = (await client.get("checkpoints"))["checkpoints"][0]["size_bytes"]
    current = await client.get("billing/usage/checkpoints/current")
    assert current["data"] == [
        {
            "project_id": "default",
            "org_user_urn": "local",
            "checkpoint_count": 1,
            "size_bytes": size,
            "size_gigabytes": size / 1e9,
        }
    ]
    assert (await client.get("billing/usage/checkpoints/current?project_id=x"))["data"] == []
    running.skew_s = 3 * 3600
    run, _, checkpoint_id = path.removeprefix("tinker://").partition("/")
    url = f"/api/v1/training_runs/{run}/checkpoints/{checkpoint_id}"
    assert (await client.http.delete(url)).status_code == 200
    running.skew_s = 10 * 3600
    told = await usage(client, hour(-1), hour(9))
    stored = [event["event_info"].get("gigabyte_hours", 0.0) for event in told["data"]]
    assert sum(stored) == pytest.approx(3 * size / 1e9, rel=0.01)
    assert (await client.get("billing/usage/checkpoints/current"))["data"] == []


@pytest.mark.parametrize(
    "start,end,field",
    [
        (hour() + timedelta(minutes=5), hour(1), "starting_on"),
        (hour(), hour(1) + timedelta(seconds=1), "ending_before"),
        (hour(), hour(), "ending_before"),
        (hour(), hour(-1), "ending_before"),
        (hour(-24 * 15), hour(), "ending_before"),
        (hour(3), hour(4), "starting_on"),
    ],
)
async def test_a_wrong_window_is_refused(
    client: EngineClient, start: datetime, end: datetime, field: str
) -> None:
    query = {"starting_on": start.isoformat(), "ending_before": end.isoformat()}
    response = await client.http.get("/api/v1/billing/usage/events", params=query)
    assert (400, field) == (response.status_code, response.json()["field"])


@pytest.mark.parametrize("moment", ["today", "2026-01-01T00:00:00", "", None])
async def test_a_window_is_of_full_moments(client: EngineClient, moment: str | None) -> None:
    query = {"ending_before": hour().isoformat()}
    if moment is not None:
        query["starting_on"] = moment
    response = await client.http.get("/api/v1/billing/usage/events", params=query)
    assert (422, "starting_on") == (response.status_code, response.json()["field"])
