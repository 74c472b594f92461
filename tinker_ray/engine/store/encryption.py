"""Files encrypted for others, in the format of age.

Source: https://age-encryption.org/v1. Knows nothing of what the files hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Recipients = Sequence[Any]

SUFFIX = ".age"


def read_recipients(texts: Sequence[str]) -> Recipients:
    """Read native ``age1…`` keys and SSH public keys.

    Raises:
        EngineError: One of them is something else, or this engine cannot encrypt.
    """
    if not texts:
        return []
    try:
        from pyrage import RecipientError, ssh, x25519
    except ImportError as error:
        message = "this engine was installed without pyrage: it cannot encrypt"
        raise EngineError(message, category="user") from error
    recipients: list[Any] = []
    for index, text in enumerate(texts):
        read = ssh.Recipient.from_str if text.startswith("ssh-") else x25519.Recipient.from_str
        try:
            recipients.append(read(text))
        except RecipientError as error:
            message = f"[{index}]: not an age recipient: expected an age1… key or an SSH public key"
            raise EngineError(message, category="user") from error
    return recipients


def encrypt_files(files: Mapping[str, bytes], recipients: Recipients) -> dict[str, bytes]:
    """Encrypt each file for all recipients and mark its name; without recipients change nothing."""
    if not recipients:
        return dict(files)
    import pyrage

    return {
        f"{name}{SUFFIX}": pyrage.encrypt(content, recipients) for name, content in files.items()
    }
