"""The engine runs the graphs that upstream traces, and gets what the functions themselves give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.loss_expressions import EXPRESSIONS, RANKS, REFUSED, loss_of
from tinker_ray.engine.training.custom_loss import validate_graph
from tinker_ray.errors import EngineError

GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "upstream_loss_expressions.json").read_text()
)
GRAPHS: dict[str, str] = GOLDEN["graphs"]
DECLARED = [{"name": name, "rank": rank} for name, rank in RANKS.items()]


def inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    values = [
        (-3 * torch.rand(6, generator=generator)).requires_grad_(),
        torch.randn(6, generator=generator),
        -torch.rand(6, 4, generator=generator),
        torch.tensor([0, 2, 2, 5, 1, 0]),
        torch.tensor(0.5),
    ]
    return dict(zip(RANKS, values, strict=True))


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_graph_that_upstream_traced_gives_what_its_function_gives(expression: str) -> None:
    given, plain = inputs(), inputs()
    loss = validate_graph(json.loads(GRAPHS[expression]), DECLARED)
    result = loss.run(given.pop("logprobs"), given)
    result.loss.backward()  # type: ignore[no-untyped-call]
    expected, metrics = loss_of(expression)(*plain.values())
    expected.backward()
    assert torch.equal(expected, result.loss)
    assert {"custom/value:mean": float(metrics["custom/value:mean"])} == result.metrics


@pytest.mark.parametrize("expression", [name for name in REFUSED if name in GRAPHS])
def test_what_is_not_allowed_is_refused_by_its_name(expression: str) -> None:
    with pytest.raises(EngineError) as raised:
        validate_graph(json.loads(GRAPHS[expression]), DECLARED)
    assert REFUSED[expression] in raised.value.message
    assert "user" == raised.value.category
