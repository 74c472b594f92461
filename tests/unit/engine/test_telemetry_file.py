from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tinker_ray.engine.serving.telemetry_file import TelemetryFile

if TYPE_CHECKING:
    from pathlib import Path


def test_reports_are_lines_of_two_bounded_files(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    file = TelemetryFile(path, max_bytes=200)
    for number in range(50):
        file.write({"number": number})
    file.close()
    file.close()
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        "telemetry.jsonl",
        "telemetry.jsonl.1",
    ]
    assert all(item.stat().st_size <= 200 for item in tmp_path.iterdir())
    assert json.loads(path.read_text().splitlines()[-1]) == {"number": 49}


def test_a_folder_that_is_gone_costs_reports_and_nothing_else(tmp_path: Path) -> None:
    file = TelemetryFile(tmp_path / "missing" / "telemetry.jsonl")
    file.write({})
    file.close()
