"""The upstream SDK under an engine with every flag that there is."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
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
