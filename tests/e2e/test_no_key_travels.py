"""No credential is in what Ray keeps or carries, while processes everywhere use theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.fakes.recording_proxy import RecordingProxy

KEY = "tml-a-key-that-may-not-travel"
TOKEN = "tml-a-token-that-may-not-travel"  # noqa: S105 - of nobody
DRIVER = """
import json, os, pathlib, sys
import tinker_ray
from tinker_ray import ModelInput, SamplingParams
from tinker_ray.engine.tiny_adder import NAME

url, token = sys.argv[1:]
tinker_ray.init(num_cpus=2)
import ray
from ray._private.worker import global_worker
from ray.experimental import internal_kv

options = {"default_headers": {"X-My-Token": os.environ["TINKER_API_KEY"]}}
service = tinker_ray.ServiceClient(base_url=url, **options)
training = service.create_lora_training_client(NAME, rank=4)
sampler = training.save_weights_and_get_sampling_client()
rest = service.create_rest_client()
admin = tinker_ray.AdminClient(base_url=url)
path = training.save_state("a").result(60).path
training.load_state(path, token).result(60)
service.create_training_client_from_state(path, weights_access_token=token)
rest.copy_weights(path, "a-project", weights_access_token=token).result(60)
clients = [service, training, sampler, rest, admin]

@ray.remote(num_cpus=0.1)
def use(service, training, sampler, rest, admin):
    sampler.sample(ModelInput.from_ints([3, 4]), 1, SamplingParams(max_tokens=1)).result(60)
    training.load_state(path, token_here()).result(60)
    rest.get_training_run(training.model_id).result(60)
    admin.get_current_checkpoint_storage_usage().result(60)
    service.create_sampling_client(base_model=NAME)
    return sampler.get_sampler_handle()

def token_here():
    return "tml-" + "-".join(["a", "token", "that", "may", "not", "travel"])

handle = ray.get(use.remote(*clients), timeout=120)
context = global_worker.get_serialization_context()
carried = {type(client).__name__: context.serialize(client).to_bytes() for client in clients}
carried["handle"] = handle.encode()
for namespace in (None, b"fun", b"cls", b"session", b"job", b"serve"):
    for key in internal_kv._internal_kv_list(b"", namespace=namespace):
        name = f"kv:{namespace}:{key.decode(errors='replace')}"
        carried[name] = internal_kv._internal_kv_get(key, namespace=namespace) or b""
session = pathlib.Path(ray._private.worker._global_node.get_session_dir_path())
service.close()
tinker_ray.shutdown()
for file in session.rglob("*"):
    if file.is_file():
        carried[str(file)] = file.read_bytes()
secrets = [os.environ["TINKER_API_KEY"].encode(), token.encode()]
found = [name for name, content in carried.items() if any(s in content for s in secrets)]
print(json.dumps({"found": found, "scanned": len(carried)}))
"""


def test_no_credential_is_in_what_ray_keeps_or_carries(embedded_engine: str) -> None:
    with RecordingProxy(embedded_engine) as proxy:
        run = subprocess.run(
            [sys.executable, "-c", DRIVER, proxy.url, TOKEN],
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
            env=os.environ | {"TINKER_API_KEY": KEY},
        )
    assert 0 == run.returncode, run.stderr[-4000:]
    told = json.loads(run.stdout.splitlines()[-1])
    assert [] == told["found"]
    assert told["scanned"] > 20
    assert {KEY} == proxy.keys
