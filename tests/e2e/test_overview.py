"""What runs on a cluster, seen from inside it and by ``tinker-ray status`` from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import ray

from actors.overview import overview
from tinker_ray import ServiceClient
from tinker_ray.engine.tiny_adder import NAME


@pytest.mark.usefixtures("ray_cluster")
def test_sessions_of_a_cluster_are_seen_from_inside_and_from_outside(embedded_engine: str) -> None:
    with ServiceClient(base_url="embedded") as service:
        training = service.create_lora_training_client(NAME, rank=4)
        session_id = training.model_id.partition(":")[0]

        (seen,) = [each for each in overview().sessions if each.session_id == session_id]
        assert seen.inventory is not None
        assert True is seen.inventory["heartbeat"]
        assert {"session", "sampler-0", "training-0"} <= set(seen.actors)
        assert {"sampler-0"} == set(seen.samplers)

        address = ray.get_runtime_context().gcs_address
        command = ["-m", "tinker_ray.cli", "status", "-f", "json", "--ray", address]
        done = subprocess.run(
            [sys.executable, *command, "--base-url", embedded_engine],
            capture_output=True,
            text=True,
            env=os.environ | {"TINKER_API_KEY": "tml-any"},
            timeout=120,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        status = json.loads(done.stdout)
        assert {"base_url": embedded_engine, "reachable": True, "models": [NAME]} == (
            status["service"]
        )
        assert [embedded_engine] == [each["url"] for each in status["engines"]]
        (shown,) = [
            each for each in status["cluster"]["sessions"] if each["session_id"] == session_id
        ]
        assert seen.inventory["permits_limit"] == shown["permits_limit"]
        assert list(seen.actors) == shown["actors"]
        assert ["sampler-0"] == [sampler["actor"] for sampler in shown["samplers"]]
        assert {True} == {sampler["answers"] for sampler in shown["samplers"]}
    assert session_id not in [each.session_id for each in overview().sessions]
