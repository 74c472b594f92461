"""What a sampling request may ask for, and whether the service did what was asked.

Pure. An older service leaves out what it does not know, and a result without it would be taken for
one with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinker_ray.errors import UnfulfilledError

if TYPE_CHECKING:
    from tinker_ray.types import SampleResponse
    from tinker_ray.wire.request import SampleRequest

_MATRIX = 2


def check_request(request: SampleRequest) -> None:
    """Refuse what the service would refuse.

    Raises:
        ValueError: An argument is out of its range, or does nothing without another one.
    """
    if request.num_samples < 1:
        message = f"num_samples must be 1 or more, got {request.num_samples}"
        raise ValueError(message)
    targets = request.target_prompt_logprobs
    if targets is not None:
        if targets.dtype != "int64":
            message = f"target_prompt_logprobs must hold int64 token ids, got {targets.dtype}"
            raise ValueError(message)
        if targets.shape is None or len(targets.shape) != _MATRIX:
            message = (
                "target_prompt_logprobs must have the shape [len(prompt) - 1, K], "
                f"got {targets.shape}"
            )
            raise ValueError(message)
    if request.prompt_alt_tokens_k < 0:
        message = f"prompt_alt_tokens_k must be 0 or more, got {request.prompt_alt_tokens_k}"
        raise ValueError(message)
    last_n = request.prompt_logprobs_last_n
    if last_n is not None and last_n < 1:
        message = f"prompt_logprobs_last_n must be 1 or more, got {last_n}"
        raise ValueError(message)
    if last_n is not None and not request.prompt_logprobs:
        message = "prompt_logprobs_last_n needs include_prompt_logprobs=True"
        raise ValueError(message)


def check_response(request: SampleRequest, response: SampleResponse) -> None:
    """Make sure that the service did what was asked.

    Raises:
        UnfulfilledError: It is too old for it, and left it out.
    """
    if request.prompt_alt_tokens_k > 0 and response.prompt_alt_tokens is None:
        message = (
            f"prompt_alt_tokens_k={request.prompt_alt_tokens_k} was asked for, and the service "
            "returned none: it may be too old for it"
        )
        raise UnfulfilledError(message)
    last_n, logprobs = request.prompt_logprobs_last_n, response.prompt_logprobs_np
    if last_n is None or logprobs is None:
        return
    if not bool(np.isnan(logprobs[: max(len(logprobs) - last_n, 0)]).all()):
        message = (
            f"prompt_logprobs_last_n={last_n} was asked for, and the service scored the whole "
            "prompt: it may be too old for it"
        )
        raise UnfulfilledError(message)
