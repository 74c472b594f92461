from __future__ import annotations

import csv
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.rest import FakeClients
from tests.unit.cli.runner import Outcome, run
from tinker_ray.clients.api_future import APIFuture
from tinker_ray.types import BillingUsageResponse, CurrentCheckpointStorageUsageResponse

if TYPE_CHECKING:
    from pathlib import Path

HOUR = {"bucket_start": "2026-07-01T00:00:00Z", "bucket_end": "2026-07-01T01:00:00Z"}
USAGE = BillingUsageResponse.model_validate(
    {
        "data": [
            {
                **HOUR,
                "base_model": "tiny",
                "session_id": "s",
                "estimated_cost_usd": 0.5,
                "event_info": {"type": "training", "token_count": 12},
            },
            {
                **HOUR,
                "session_id": "s",
                "event_info": {"type": "storage", "gigabyte_hours": 1.5},
            },
        ],
        "sessions": {"s": {"user_metadata": {"team": "rl"}}, "t": {}},
        "cost_data_through": "2026-07-01T00:00:00Z",
    }
)
STORAGE = CurrentCheckpointStorageUsageResponse.model_validate(
    {
        "effective_rate_usd_per_gigabyte_month": 0.1,
        "data": [
            {
                "project_id": "p",
                "checkpoint_count": 2,
                "size_bytes": 10,
                "size_gigabytes": 0.1,
                "estimated_monthly_cost_usd": 0.01,
            }
        ],
    }
)
SPAN = ("2026-07-01T00:00:00Z", "2026-07-02")


@dataclass
class FakeAdmin:
    """Answers with what was recorded; keeps the questions."""

    asked: list[Any] = field(default_factory=list)

    def get_billing_usage(
        self, starting_on: datetime, ending_before: datetime
    ) -> APIFuture[BillingUsageResponse]:
        self.asked.append((starting_on, ending_before))
        return APIFuture.of(USAGE)

    def get_current_checkpoint_storage_usage(
        self, project_id: str | None = None
    ) -> APIFuture[CurrentCheckpointStorageUsageResponse]:
        self.asked.append(project_id)
        return APIFuture.of(STORAGE)


def billing(*arguments: str, admin: FakeAdmin | None = None) -> Outcome:
    return run("billing", *arguments, clients=FakeClients(fake_admin=admin or FakeAdmin()))


def test_usage_is_asked_for_with_times_of_utc() -> None:
    admin = FakeAdmin()
    billing("usage", *SPAN, admin=admin)
    assert [(datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 7, 2, tzinfo=UTC))] == admin.asked


def test_a_script_gets_usage_in_the_wires_shape() -> None:
    value = billing("usage", *SPAN, "-f", "json").value
    assert {"type": "training", "token_count": 12} == value["data"][0]["event_info"]
    assert {"team": "rl"} == value["sessions"]["s"]["user_metadata"]
    assert "2026-07-01T00:00:00Z" == value["cost_data_through"]


def test_a_table_lays_events_beside_what_they_have_in_common() -> None:
    lines = billing("usage", *SPAN).lines
    assert "2 rows of usage" == lines[0]
    assert {"bucket_start", "base_model", "token_count", "gigabyte_hours"} <= set(lines[1].split())
    assert "tiny" in lines[2]


def test_csv_goes_to_standard_output_and_into_files(tmp_path: Path) -> None:
    shown = list(csv.DictReader(billing("usage", *SPAN, "--csv", "-").output.splitlines()))
    assert ["12", ""] == [row["token_count"] for row in shown]
    assert ["0.5", ""] == [row["estimated_cost_usd"] for row in shown]
    rows, sessions = tmp_path / "rows.csv", tmp_path / "sessions.csv"
    outcome = billing("usage", *SPAN, "--csv", str(rows), "--sessions-csv", str(sessions))
    assert ("", 0) == (outcome.output, outcome.code)
    assert shown == list(csv.DictReader(rows.read_text().splitlines()))
    assert [
        {"session_id": "s", "user_metadata": '{"team": "rl"}'},
        {"session_id": "t", "user_metadata": ""},
    ] == list(csv.DictReader(sessions.read_text().splitlines()))


def test_storage_is_shown_of_one_project_or_of_all() -> None:
    admin = FakeAdmin()
    lines = billing("checkpoint-storage", "--project-id", "p", admin=admin).lines
    assert "Current checkpoint storage" == lines[0]
    assert lines[1].startswith("effective_rate_usd_per_gigabyte_month project_id")
    value = billing("checkpoint-storage", "-f", "json", admin=admin).value
    assert (0.1, 2) == (
        value["effective_rate_usd_per_gigabyte_month"],
        value["data"][0]["checkpoint_count"],
    )
    assert ["p", None] == admin.asked


@pytest.mark.parametrize("span", [("soon", "2026-07-02"), ("2026-07-01", "later")])
def test_a_span_that_is_no_time_is_refused(span: tuple[str, str]) -> None:
    admin = FakeAdmin()
    outcome = billing("usage", *span, admin=admin)
    assert (1, []) == (outcome.code, admin.asked)
    assert "ISO 8601" in outcome.errors
