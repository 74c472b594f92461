"""From the provenance of a datum to the logprobs that its targets were sampled with.

The runs of a datum say which of its tokens were drawn, and in which sample. They are not believed:
each has to name tokens that the recorded sample has at that place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tinker_ray.engine.training.recorded_samples import RecordedSample
from tinker_ray.errors import EngineError
from tinker_ray.types import SampledProvenanceSpan

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from tinker_ray.types import Datum, PromptProvenanceSpan, ProvenanceSpans

    Tokens = npt.NDArray[np.int64]

FindSample: TypeAlias = Callable[[str], RecordedSample]


def recorded_logprobs(
    path: str, datum: Datum, tokens: Tokens, targets: Tokens, find_sample: FindSample
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the recorded logprobs of targets, and 1 for each that was drawn, both ``(T,)``.

    Args:
        path: Where the datum is in its request.
        datum: With the runs that its tokens and targets come from.
        tokens: What the model reads, ``(T,)``.
        targets: What it should say, ``(T,)``.
        find_sample: Looks a recorded sample up by its ``sequence_id``.

    Raises:
        EngineError: There are no runs, or they do not describe the datum.
    """
    if datum.model_input_spans is None or datum.loss_fn_input_spans is None:
        message = (
            f"{path} has no provenance: this loss needs samples taken with record_stability_info, "
            "named by Datum.with_provenance"
        )
        raise EngineError(message, category="user")
    for _ in _runs(f"{path}.model_input_spans", datum.model_input_spans, tokens, find_sample):
        pass
    logprobs = np.zeros(len(targets), np.float32)
    sampled = np.zeros(len(targets), np.float32)
    where = f"{path}.loss_fn_input_spans"
    for place, span, sample in _runs(where, datum.loss_fn_input_spans, targets, find_sample):
        if isinstance(span, SampledProvenanceSpan):
            logprobs[place] = sample.logprobs[span.offset : span.offset + span.length]
            sampled[place] = 1.0
    return logprobs, sampled


def _runs(
    path: str, spans: ProvenanceSpans, tokens: Tokens, find_sample: FindSample
) -> Iterator[tuple[slice, PromptProvenanceSpan | SampledProvenanceSpan, RecordedSample]]:
    """Go through runs, each checked against the sample that it names, with its place."""
    start = 0
    for index, span in enumerate(spans):
        where = f"{path}[{index}]"
        try:
            sample = find_sample(span.sequence_id)
        except EngineError as error:
            raise EngineError(f"{where}: {error.message}", category=error.category) from error
        is_drawn = isinstance(span, SampledProvenanceSpan)
        source = sample.tokens if is_drawn else sample.prompt
        place, stop = slice(start, start + span.length), span.offset + span.length
        if stop > len(source):
            kind = "drawn tokens" if is_drawn else "prompt tokens"
            message = f"{where} ends at {stop}, but the sample has {len(source)} {kind}"
            raise EngineError(message, category="user")
        if not np.array_equal(source[span.offset : stop], tokens[place]):
            message = f"{where} names other tokens than the datum has from {start} on"
            raise EngineError(message, category="user")
        yield place, span, sample
        start = place.stop
    if start != len(tokens):
        message = f"{path} cover {start} positions, but there are {len(tokens)}"
        raise EngineError(message, category="user")
