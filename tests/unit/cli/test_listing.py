"""Sessions, models, the version; and how values are worded."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakes.rest import NOON, FakeRest
from tests.unit.cli.runner import run
from tinker_ray.cli.wording import size, when
from tinker_ray.types import GetSessionResponse, SupportedModel
from tinker_ray.version import __version__


def test_sessions_are_listed_until_a_page_comes_short() -> None:
    session = GetSessionResponse(training_run_ids=[], sampler_ids=[])
    rest = FakeRest(sessions={f"s{number}": session for number in range(130)})
    outcome = run("session", "list", "--limit", "0", "-f", "json", rest=rest)
    assert {"sessions": [f"s{number}" for number in range(130)]} == outcome.value
    assert [0, 100] == [call["offset"] for _name, call in rest.calls]


def test_a_session_is_shown_with_what_it_made() -> None:
    session = GetSessionResponse(
        training_run_ids=["s:train:0"], sampler_ids=["s:sample:0"], display_name="mine"
    )
    rest = FakeRest(sessions={"s": session})
    lines = run("session", "info", "s", rest=rest).lines
    assert ["Name mine", "Training run s:train:0", "Sampler s:sample:0"] == lines[3:]
    value = run("session", "info", "s", "-f", "json", rest=rest).value
    assert ("s", ["s:train:0"]) == (value["session_id"], value["training_run_ids"])


def test_models_are_found_by_a_part_of_their_name() -> None:
    models = [
        SupportedModel(model_name="Big/One", max_context_length=8192, trainable=True),
        SupportedModel(model_name="small/two"),
    ]
    rest = FakeRest(models=models)
    assert ["Model Context Trainable Sampleable", "Big/One 8192 yes -"] == run(
        "model", "list", "big", rest=rest
    ).lines
    value = run("model", "list", "-f", "json", rest=rest).value
    assert ["Big/One", "small/two"] == [model["model_name"] for model in value["models"]]
    assert 1 == run("model", "list", "nope", rest=rest).code


def test_the_version_is_printed() -> None:
    assert f"tinker-ray {__version__}\n" == run("version").output
    assert {"version": __version__} == run("version", "-f", "json").value


@pytest.mark.parametrize(
    "num_bytes, words",
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KB"),
        (5 * 1024**3, "5.0 GB"),
        (3 * 1024**6, "3072.0 PB"),
    ],
)
def test_sizes_are_worded(num_bytes: int | None, words: str) -> None:
    assert words == size(num_bytes)


@pytest.mark.parametrize(
    "ago, words",
    [
        (timedelta(seconds=3), "just now"),
        (timedelta(seconds=-3), "in less than a minute"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(hours=5), "5 hours ago"),
        (timedelta(days=-2), "in 2 days"),
        (timedelta(days=15), "2 weeks ago"),
        (timedelta(days=60), "2026-04-02"),
    ],
)
def test_times_are_worded(ago: timedelta, words: str) -> None:
    assert words == when(NOON - ago, NOON)


def test_a_time_that_is_not_set_is_worded() -> None:
    assert ("-", "never") == (when(None), when(None, absent="never"))
