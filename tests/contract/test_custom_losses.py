"""Custom losses are traced as upstream traces them, see ``record_losses.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.loss_functions import REFUSED, TRACED
from tinker_ray.core.custom_loss import encode, trace
from tinker_ray.wire import json_value

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "upstream_losses.json").read_text()
)


@pytest.mark.parametrize("name", TRACED)
def test_a_loss_is_uploaded_in_upstreams_bytes(name: str) -> None:
    if torch.__version__.partition("+")[0] != RECORDED["torch"].partition("+")[0]:
        pytest.skip(f"recorded with torch {RECORDED['torch']}: record the graphs again")
    fn, ranks = TRACED[name]
    loss = trace(fn, ranks)
    body = {
        "session_id": "S1",
        "custom_loss_seq_id": 0,
        "name": loss.name,
        "inputs": [item.model_dump() for item in loss.inputs],
        "graph": encode(loss),
        "type": "create_custom_loss",
    }
    assert RECORDED["requests"][name] == json_value.dumps(body).decode()


def test_every_recorded_loss_is_compared() -> None:
    assert (set(RECORDED["requests"]), set(RECORDED["refusals"])) == (set(TRACED), set(REFUSED))


@pytest.mark.parametrize("name", REFUSED)
def test_what_upstream_refuses_is_refused(name: str) -> None:
    fn, ranks = REFUSED[name]
    with pytest.raises(ValueError, match="create_custom_loss"):
        trace(fn, ranks)
