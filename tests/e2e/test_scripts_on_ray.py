"""Upstream's scripts inside Ray tasks under ``install()``: cluster mode, the same results."""

from __future__ import annotations

import sys

import pytest

from tests.fakes.upstream_script import INSTALLED, SCRIPTS, assert_alike, started

ON_RAY = """
import json, sys
import tinker_ray
tinker_ray.install()
tinker_ray.init(num_cpus=2)
import ray

@ray.remote(num_cpus=0)
def run(path):
    import contextlib, io, runpy
    from ray.util import list_named_actors
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        runpy.run_path(path, run_name="__main__")
    import tinker
    actors = [each["name"].rpartition("/")[2] for each in list_named_actors(all_namespaces=True)]
    return tinker.ServiceClient.__module__, actors, json.loads(output.getvalue().splitlines()[-1])

print(json.dumps(ray.get([run.remote(path) for path in sys.argv[1:]])))
"""
NAMES = ("sft_sync", "dpo_custom")


@pytest.mark.timeout(300)
def test_scripts_run_unmodified_in_ray_tasks(embedded_engine: str) -> None:
    paths = [str(SCRIPTS / f"{name}.py") for name in NAMES]
    with started(embedded_engine, sys.executable, "-c", ON_RAY, *paths) as on_ray:
        on_cluster = on_ray.result()
    for path, (module, actors, result) in zip(paths, on_cluster, strict=True):
        with started(embedded_engine, sys.executable, "-c", INSTALLED, path) as local:
            assert_alike(local.result(), result)
        assert module.startswith("tinker_ray.")
        assert {"session", "training-0", "sampler-0"} <= set(actors)
