"""A node is lost with the trajectories of groups that were to be trained on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.soak  # Ray takes its time to give up what was on a node
def test_training_goes_on_without_what_was_lost_with_a_node() -> None:
    script = [sys.executable, "-m", "tests.fakes.lost_node"]
    outcome = subprocess.run(script, capture_output=True, text=True, check=False, timeout=280)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    report = json.loads(outcome.stdout.splitlines()[-1])
    num_data = report["num_data"]
    assert {"lost": [1, 3], "num_data": num_data, "num_sent": num_data, "num_unread": 2} == report
    assert num_data > 0
