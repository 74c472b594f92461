"""The upstream SDK under an engine with every flag that there is, and upstream's own commands."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.fakes.served import Served
from tests.fakes.upstream import upstream_python

SCRIPT = Path(__file__).with_name("upstream_flags.py")
KEY = "tml-of-anna"
FLAGS = (
    "pjwt_auth_enabled=true",
    "sample_use_retrieve_futures=true",
    "parallel_fwdbwd_chunks=true",
    "proto_compress_fwdbwd=true",
    "custom_loss_server_side=true",
    "sample_join_sampling_session=true",
    "sample_cancel_enabled=true",
)
BASE = "tinker-ray/tiny-adder"


@pytest.mark.timeout(240)
def test_the_new_client_does_what_every_flag_says(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"anna:{KEY}\nbela:tml-of-bela\n")
    flags = [part for flag in FLAGS for part in ("--flag", flag)]
    data = tmp_path / "data"
    options = ("--data", str(data), "--api-keys", str(keys), "--wire", "protobuf", *flags)
    python = upstream_python("0.38.0")
    with Served(*options) as served:
        command = [str(python), str(SCRIPT), served.url, KEY, str(data / "ledger.sqlite")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        assert served.end(signal.SIGTERM) == 0
    told = json.loads(done.stdout.splitlines()[-1])
    session_id = told.pop("session_id")
    losses = told.pop("losses")
    assert losses[0] == pytest.approx(losses[1])
    assert told == {
        "outputs": 1500,
        "loss_id": f"{session_id}:loss:0",
        "samples": 40,
        "copied": 1,
        "identity": ["anna", "tml:organization:engine"],
    }
    ledger = sqlite3.connect(data / "ledger.sqlite")
    one = ledger.execute
    assert one("SELECT num_joined FROM samplers").fetchone() == (1,)
    (cancelled,) = one("SELECT count(*) FROM activity WHERE kind = 'sample' AND ok = 0").fetchone()
    assert cancelled >= 1
    assert one("SELECT DISTINCT owner FROM promises").fetchall() == [("anna",)]
    ledger.close()
    assert "SESSION_START" in (data / "telemetry.jsonl").read_text()


def post(url: str, path: str, body: dict[str, object]) -> dict[str, str]:
    request = urllib.request.Request(  # noqa: S310 - our own URL
        f"{url}/api/v1/{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        parsed: dict[str, str] = json.load(response)
        return parsed


@pytest.mark.timeout(240)
def test_both_upstream_commands_download_the_same_adapter(tmp_path: Path) -> None:
    with Served("--data", str(tmp_path / "data")) as served:
        session = post(served.url, "create_session", {"tags": [], "sdk_version": "0"})
        model = {
            "session_id": session["session_id"],
            "model_seq_id": 0,
            "base_model": BASE,
            "lora_config": {"rank": 4},
        }
        model_id = served.result(post(served.url, "create_model", model))["model_id"]
        saved = served.result(
            post(served.url, "save_weights", {"model_id": model_id, "path": "a", "seq_id": 1})
        )
        environment = {**os.environ, "TINKER_BASE_URL": served.url, "TINKER_API_KEY": "tml-x"}
        digests = []
        for version in ("0.6.3", "0.38.0"):
            target = tmp_path / version
            tinker = upstream_python(version).with_name("tinker")
            command = [str(tinker), "checkpoint", "download", saved["path"], "-o", str(target)]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
                env=environment,
            )
            assert done.returncode == 0, done.stderr
            files = [path for path in target.rglob("*") if path.is_file()]
            digests.append({f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files})
    assert digests[0] == digests[1]
    assert sorted(digests[0]) == ["adapter_config.json", "adapter_model.safetensors"]
