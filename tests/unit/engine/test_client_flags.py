from __future__ import annotations

import pytest

from tinker_ray.engine.client_flags import ClientFlags
from tinker_ray.errors import EngineStartError


def test_flags_are_read_by_their_types() -> None:
    flags = ClientFlags.parse(
        [
            "sample_use_retrieve_futures=true",
            "use_pyqwest_transport=False",
            "fwdbwd_max_chunk_len=7",
            "credential_default_source=credential_cmd",
            "fwdbwd_max_chunk_len=8",
        ]
    )
    assert flags.sample_use_retrieve_futures is True
    assert flags.use_pyqwest_transport is False
    assert flags.fwdbwd_max_chunk_len == 8
    assert flags.credential_default_source == "credential_cmd"
    assert ClientFlags.parse([]) == ClientFlags()


@pytest.mark.parametrize(
    "text,told",
    [
        ("no_such_flag=1", "pjwt_auth_enabled"),
        ("pjwt_auth_enabled", "NAME=VALUE"),
        ("pjwt_auth_enabled=yes", "true or false"),
        ("fwdbwd_max_chunk_len=many", "a number"),
        ("fwdbwd_max_chunk_len=0", "a number above 0"),
        ("fwdbwd_max_chunk_len=-1", "a number"),
    ],
)
def test_a_flag_that_cannot_be_is_refused(text: str, told: str) -> None:
    with pytest.raises(EngineStartError, match=told):
        ClientFlags.parse([text])
