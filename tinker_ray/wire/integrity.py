"""What headers say of content: which part of it comes, and what its checksum is. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_DIGEST = re.compile(r"sha-256=:?([0-9A-Za-z+/=]+?):?(?:,|$)", re.IGNORECASE)
_SHA256_BYTES = 32


def range_start(headers: Mapping[str, str]) -> int | None:
    """Read where the part begins that an answer holds; None if it does not say."""
    found = _RANGE.fullmatch(headers.get("content-range", ""))
    return None if found is None or found[1] is None else int(found[1])


def range_total(headers: Mapping[str, str]) -> int | None:
    """Read how much there is altogether; None if the answer does not say."""
    found = _RANGE.fullmatch(headers.get("content-range", ""))
    return None if found is None or found[2] == "*" else int(found[2])


def sha256_of(headers: Mapping[str, str]) -> str | None:
    """Read the SHA-256 of the whole content, in hexadecimal; None if there is none to be read.

    Source: ``Digest`` (RFC 3230) and ``Repr-Digest`` (RFC 9530), besides ``x-checksum-sha256``.
    """
    plain = headers.get("x-checksum-sha256", "").strip()
    if _HEX.fullmatch(plain):
        return plain.lower()
    for name in ("repr-digest", "digest"):
        found = _DIGEST.search(headers.get(name, "").replace(" ", ""))
        if found is not None and (digest := _decoded(found[1])) is not None:
            return digest
    return None


def _decoded(text: str) -> str | None:
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return digest.hex() if len(digest) == _SHA256_BYTES else None
