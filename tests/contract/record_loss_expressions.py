"""Record the graphs that the installed upstream SDK traces of ``loss_expressions.py``.

Run in an environment that has upstream and torch::

    python tests/contract/record_loss_expressions.py

It writes ``golden/upstream_loss_expressions.json``: each expression with its graph, as upstream
sends it.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

GOLDEN = Path(__file__).parent / "golden" / "upstream_loss_expressions.json"


def main() -> None:
    """Trace everything and write the file."""
    module = importlib.import_module("loss_expressions")
    upstream = importlib.import_module("tinker.lib.public_interfaces.custom_loss")
    graphs, untraced = {}, {}
    for expression in [*module.EXPRESSIONS, *module.REFUSED]:
        try:
            handle = upstream.trace_loss(module.loss_of(expression), module.RANKS, "S1")
        except ValueError as error:
            untraced[expression] = str(error)
        else:
            graphs[expression] = upstream.encode_graph(handle).model_dump(mode="json")
    content = {
        "tinker": importlib.import_module("tinker").__version__,
        "torch": importlib.import_module("torch").__version__,
        "untraced": untraced,
        "graphs": {
            name: json.dumps(graph, separators=(",", ":")) for name, graph in graphs.items()
        },
    }
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
