"""Results as our engine encodes them, for upstream to read: run as a script it writes them down.

``python tests/contract/our_results.py`` writes ``golden/ours.json``, which ``record_golden.py``
hands to upstream's clients; ``test_golden_bytes.py`` holds that the file is what we encode today.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import numpy as np

from tinker_ray.types import (
    ForwardBackwardOutput,
    SampledSequence,
    SampleResponse,
    TensorData,
    TopkLogprobs,
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
            "",
            np.array([11, 12], dtype=np.int32),
            np.array([-0.125, -0.25], dtype=np.float32),
        ),
        SampledSequence(
            "length",
            "",
            np.array([13], dtype=np.int32),
            np.array([-0.75], dtype=np.float32),
        ),
    ],
    prompt_logprobs_np=np.array([np.nan, -1.0, -0.5], dtype=np.float32),
    topk_prompt_logprobs_np=TopkLogprobs(
        np.array([[0, 0], [5, 6], [9, 0]], dtype=np.int32),
        np.array([[-99999.0, -99999.0], [-0.125, -2.5], [-0.5, -99999.0]], dtype=np.float32),
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
