from __future__ import annotations

import json

import pytest

from tinker_ray.engine.serving.route import parse_json


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1,]",
        b"\xff",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e999",
        b'"\\ud800"',
        b'{"\\uDFFF": 1}',
        b"[" * 100_000,
        b"9" * 10_000,
    ],
)
def test_what_is_not_strict_json_is_refused(content: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json(content)


def test_all_that_is_json_is_read() -> None:
    value = {"a": [1, -2.5, 1e10, None, True, "ä\u0000\\ud", "😀"], "": {}}
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert parse_json(b'"\\ud83d\\ude00"') == "😀"
