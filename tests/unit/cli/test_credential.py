from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from tinker_ray.cli.credential import CredentialFile, StoredKey
from tinker_ray.cli.failure import CommandError

if TYPE_CHECKING:
    from pathlib import Path

DETAILS = {"org_details": {"name": "Org"}, "user_details": {"email": "me@example.org"}}
KEY = StoredKey("7", "tml-secret", "laptop", "manual", "a note", DETAILS)


def test_a_key_is_stored_in_upstreams_form_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / ".tinker" / "credentials.json"
    CredentialFile(path).store(KEY)
    assert {
        "version": 1,
        "default": "7",
        "keys": {
            "7": {
                "type": "manual",
                "key": "tml-secret",
                "name": "laptop",
                "note": "a note",
                "details": DETAILS,
            }
        },
    } == json.loads(path.read_text())
    assert (0o600, 0o700) == tuple(
        stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)
    )
    assert [path] == list(path.parent.iterdir())
    assert CredentialFile(path).default() == KEY
    assert ("Org", "me@example.org") == (KEY.organization, KEY.email)


def test_a_key_is_never_shown() -> None:
    assert "tml-secret" not in repr(KEY)


def test_removing_the_default_leaves_the_others(tmp_path: Path) -> None:
    file = CredentialFile(tmp_path / "credentials.json")
    file.store(StoredKey("1", "tml-a", "first"))
    file.store(StoredKey("2", "tml-b", "second"))
    file.remove("2")
    assert file.default() is None
    assert {"version": 1, "keys": {"1": {"type": "manual", "key": "tml-a", "name": "first"}}} == (
        json.loads(file.path.read_text())
    )


def test_without_a_file_there_is_no_key(tmp_path: Path) -> None:
    assert CredentialFile(tmp_path / "none").default() is None


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"version": 2}', '{"keys": 3}', '{"keys": {"a": {}}, "default": "a"}', "null"],
)
def test_a_file_of_another_form_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(content)
    with pytest.raises(CommandError, match="credentials file"):
        CredentialFile(path).store(KEY)
    assert content == path.read_text()
