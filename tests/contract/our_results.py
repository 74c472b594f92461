"""Results as our engine encodes them, for upstream to read: run as a script it writes them down.

``python tests/contract/our_results.py`` writes ``golden/ours.json``, which ``record_golden.py``
hands to upstream's clients; ``test_golden_bytes.py`` holds that the file is what we encode today.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from tinker_ray.types import (
    ForwardBackwardOutput,
    PromptAltTokens,
    SampledSequence,
    SampleResponse,
    TensorData,
)
from tinker_ray.wire import codec

GOLDEN = Path(__file__).parent / "golden"

TRAINED = ForwardBackwardOutput(
    "TorchLossReturn",
    [
        {"logprobs": TensorData([-0.5, -1.25, -0.03125], "float32", [3])},
        {"logprobs": TensorData([-2.0], "float32", [1])},
    ],
    {"loss:sum": 3.75, "tokens:mean": 2.0, "grad:max": 0.5},
)
SAMPLED = SampleResponse(
    [
        SampledSequence(
            "stop",
            tokens=[11, 12],
            logprobs=[-0.125, -0.25],
            topk_logprobs=[[(11, -0.125)], [(4, -0.0625), (12, -0.25)]],
        ),
        SampledSequence("length", tokens=[13], logprobs=[-0.75], topk_logprobs=[[(13, -0.75)]]),
    ],
    prompt_logprobs=[None, -1.0, -0.5],
    topk_prompt_logprobs=[None, [(5, -0.125), (6, -2.5)], [(9, -0.5)]],
    target_prompt_logprobs=TensorData([-4.0], "float32", [2, 3], [0, 1, 1], [2]),
    prompt_cache_hit_tokens=2,
    prompt_alt_tokens=PromptAltTokens(
        TensorData([7, 8, 9, 10], "int64", [2, 2]),
        TensorData([-1.0, -2.0, -3.0, -4.0], "float32", [2, 2]),
    ),
)


def encoded() -> dict[str, dict[str, str]]:
    """Encode the results in both encodings; protobuf as base64."""
    trained = codec.encode_forward_backward_output(TRAINED, proto=True).content
    sampled = codec.encode_sample_response(SAMPLED, proto=True).content
    return {
        "protobuf": {
            "ForwardBackward": base64.b64encode(trained).decode(),
            "Sample": base64.b64encode(sampled).decode(),
        },
        "json": {
            "ForwardBackward": codec.encode_forward_backward_output(
                TRAINED, proto=False
            ).content.decode(),
            "Sample": codec.encode_sample_response(SAMPLED, proto=False).content.decode(),
        },
    }


def main() -> None:
    """Write them down."""
    path = GOLDEN / "ours.json"
    path.write_text(json.dumps(encoded(), indent=1) + "\n")
    sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
