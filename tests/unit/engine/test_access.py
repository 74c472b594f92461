"""Keys, tokens and signatures."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from tinker_ray.config import Secret
from tinker_ray.engine.access.api_key import ApiKey, read_keys
from tinker_ray.engine.access.key_ring import KeyRing
from tinker_ray.engine.access.secret_file import load_secret
from tinker_ray.engine.access.signature import SignatureError, Signer
from tinker_ray.engine.access.token import TokenClaims, TokenMint
from tinker_ray.engine.store.ledger import Ledger
from tinker_ray.errors import EngineError, EngineStartError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "data")
    yield ledger
    ledger.close()


def test_a_file_of_keys_names_owners_and_projects(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\n\nanna:tml-1\n bela@x:tml-2:apples \n")
    first, second = read_keys(path)
    assert (first.owner, first.secret.reveal(), first.project_id) == ("anna", "tml-1", None)
    assert (second.owner, second.secret.reveal(), second.project_id) == (
        "bela@x",
        "tml-2",
        "apples",
    )


@pytest.mark.parametrize(
    "line",
    ["tml-hidden", "anna:", ":tml-hidden", "an na:tml-hidden", "a:tml-hidden:", "../x:tml-hidden"],
)
def test_a_line_that_is_no_key_is_named_but_not_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"anna:tml-1\n{line}\n")
    with pytest.raises(EngineStartError, match="line 2") as caught:
        read_keys(path)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe"])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(EngineStartError):
        read_keys(path)
    with pytest.raises(EngineStartError):
        read_keys(tmp_path / "missing")


def test_a_key_without_an_owner_is_an_owner_of_its_own() -> None:
    first, second = ApiKey(Secret("tml-1")), ApiKey(Secret("tml-2"))
    assert first.owner_name != second.owner_name
    assert "tml" not in f"{first.owner_name} {first!r}"


def test_a_key_ring_finds_the_caller_of_a_key(ledger: Ledger) -> None:
    keys = [ApiKey(Secret("tml-1"), "anna", "p"), ApiKey(Secret("tml-2"))]
    ring = KeyRing(keys, ledger.keys, 1.0)
    found = ring.find(b"tml-1")
    assert found is not None
    assert (found.owner, found.project_id) == ("anna", "p")
    assert ring.by_id(found.key_id) == found
    assert (ring.find(b"tml-3"), ring.find(b""), ring.by_id(99), ring.is_open) == (
        None,
        None,
        None,
        False,
    )
    assert KeyRing([], ledger.keys, 1.0).is_open


def test_a_revoked_key_stays_so(ledger: Ledger) -> None:
    keys = [ApiKey(Secret("tml-1"), "anna")]
    ring = KeyRing(keys, ledger.keys, 1.0)
    found = ring.find(b"tml-1")
    assert found is not None
    assert found.key_id is not None
    ring.revoke(found.key_id, 2.0)
    assert (ring.find(b"tml-1"), ring.by_id(found.key_id)) == (None, None)
    again = KeyRing(keys, ledger.keys, 3.0)
    assert (again.find(b"tml-1"), again.revoked, again.is_open) == (None, [found], False)


def test_a_token_says_whose_it_is_and_until_when() -> None:
    mint = TokenMint(b"secret")
    claims = TokenClaims("anna", 3, 200.0)
    token = mint.issue(claims, 100.0)
    assert mint.read(token) == claims
    header, payload, _ = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
    assert json.loads(header) == {"alg": "HS256", "typ": "JWT"}
    assert json.loads(payload) == {
        "sub": "anna",
        "org_id": "engine",
        "email": "",
        "iat": 100,
        "exp": 200,
        "key_id": 3,
    }


@pytest.mark.parametrize(
    "text", ["", "eyJ", "a.b.c", "eyJ.eyJ.", "ä.ö.ü", "eyJhbGciOiJub25lIn0.e30."]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(SignatureError):
        TokenMint(b"secret").read(text)


def test_a_token_of_another_engine_is_refused() -> None:
    token = TokenMint(b"one").issue(TokenClaims("anna", 3, 200.0), 100.0)
    with pytest.raises(SignatureError):
        TokenMint(b"other").read(token)


def test_signed_text_is_for_one_purpose_until_a_time() -> None:
    signer = Signer(b"secret")
    text = signer.sign("archive", {"path": "x"}, 200.0)
    assert signer.verify("archive", text, 199.0)["path"] == "x"
    for purpose, moment in (("file", 199.0), ("archive", 200.0)):
        with pytest.raises(SignatureError):
            signer.verify(purpose, text, moment)
    with pytest.raises(SignatureError):
        Signer(b"other").verify("archive", text, 199.0)


@pytest.mark.parametrize("text", ["", ".", "a", "a.b", "a.!", "ä.ä", "\ud800.x"])
def test_what_is_not_signed_is_refused(text: str) -> None:
    with pytest.raises(SignatureError):
        Signer(b"secret").verify("archive", text, 0.0)


def test_secrets_for_different_uses_differ() -> None:
    signer = Signer(b"secret")
    assert len({signer.derive("a"), signer.derive("b"), Signer(b"x").derive("a")}) == 3


def test_a_data_folder_keeps_its_secret_to_its_user(tmp_path: Path) -> None:
    secret = load_secret(tmp_path)
    assert load_secret(tmp_path) == secret
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(EngineError, match="not the secret"):
        load_secret(tmp_path)
