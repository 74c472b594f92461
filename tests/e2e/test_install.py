"""``import tinker`` in Ray's workers, after ``tinker_ray.install()`` in the driver."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import ray

import tinker_ray
from tinker_ray.errors import ConfigurationError

DRIVER = """
import sys
import tinker_ray
tinker_ray.install()
tinker_ray.init(sys.argv[1])
import ray
import tinker
from tinker import types

@ray.remote(num_cpus=0.1)
def where(prompt):
    import tinker
    from tinker.types.model_input import ModelInput
    return tinker.ServiceClient.__module__, prompt == ModelInput.from_ints([1, 2])

print(ray.get(where.remote(types.ModelInput.from_ints([1, 2])), timeout=60))
tinker_ray.install()  # again, now that Ray is there
tinker_ray.shutdown()
"""


def test_workers_of_an_installing_driver_know_tinker(ray_cluster: str) -> None:
    address = ray.get_runtime_context().gcs_address
    run = subprocess.run(
        [sys.executable, "-c", DRIVER, address],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=dict(os.environ),
    )
    assert ("('tinker_ray.clients.service', True)", 0) == (run.stdout.strip(), run.returncode), (
        run.stderr
    )


@pytest.mark.usefixtures("ray_cluster")
def test_installing_after_ray_was_started_is_refused_with_advice() -> None:
    with pytest.raises(ConfigurationError, match=r"before ray\.init.*worker_process_setup_hook"):
        tinker_ray.install()
