"""Record how the installed upstream SDK traces custom losses, and which it refuses.

Run in an environment that has upstream and torch::

    python tests/contract/record_losses.py

It writes ``golden/upstream_losses.json``: for each loss of ``loss_functions.py`` the body of the
request that uploads it, as the bytes that upstream sends, or what it says when it refuses.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

GOLDEN = Path(__file__).parent / "golden" / "upstream_losses.json"


def body(handle: Any) -> str:  # noqa: ANN401 - upstream's
    """Encode the request that uploads a loss, by upstream's own steps."""
    custom_loss = importlib.import_module("tinker.lib.public_interfaces.custom_loss")
    types = importlib.import_module("tinker.types")
    dump = importlib.import_module("tinker._compat").model_dump
    request = types.CreateCustomLossRequest(
        session_id="S1",
        custom_loss_seq_id=0,
        name=handle.name,
        inputs=list(handle.inputs),
        graph=custom_loss.encode_graph(handle),
    )
    fields = dump(request, exclude_unset=False, exclude_none=True, mode="json")
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def main() -> None:
    """Trace everything and write the file."""
    functions = importlib.import_module("loss_functions")
    trace = importlib.import_module("tinker.lib.public_interfaces.custom_loss").trace_loss
    refusals = {}
    for name, (fn, ranks) in functions.REFUSED.items():
        try:
            trace(fn, ranks, "S1")
        except ValueError as error:
            refusals[name] = str(error)
    content = {
        "tinker": importlib.import_module("tinker").__version__,
        "torch": importlib.import_module("torch").__version__,
        "requests": {
            name: body(trace(fn, ranks, "S1")) for name, (fn, ranks) in functions.TRACED.items()
        },
        "refusals": refusals,
    }
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
