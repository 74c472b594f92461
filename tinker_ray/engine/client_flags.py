"""What the service tells clients to do: upstream's flags with upstream's names.

The defaults are what suits this engine; where it does not care they are the clients' own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from tinker_ray.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import Iterable

_DYNAMIC = {"refresh_interval_sec", "sample_cancel_enabled", "sample_cancel_max_batch_size"}
_TRUE = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class ClientFlags:
    """Flags of ``client/config``, and of ``client/dynamic_config``, which clients fetch again.

    Attributes:
        pjwt_auth_enabled: Whether clients exchange their key for a token that expires.
        credential_default_source: ``credential_cmd`` makes clients run a command for their key.
        sample_dispatch_bytes_semaphore_size: Bytes of prompts that a client sends at once.
        inflight_response_bytes_semaphore_size: Bytes of large results that it fetches at once.
        parallel_fwdbwd_chunks: Whether it sends the parts of a batch at once; false keeps order.
        proto_compress_fwdbwd: Whether it compresses batches.
        fwdbwd_max_chunk_len: Datums in a part of a batch.
        fwdbwd_max_chunk_bytes_count: Bytes in a part of a batch.
        fwdbwd_dispatch_bytes_semaphore_size: Bytes of batches that it sends at once.
        billing_exception_max_pause_duration_sec: Seconds for which it waits while nothing is paid.
        sample_no_retries: Whether it leaves samples that fail alone.
        sample_enable_stuck_detection: Whether it gives up when no sample ends for very long.
        sample_max_concurrent_requests: Samples that one sampling client has under way.
        use_pyqwest_transport: Whether it may use its own HTTP stack.
        sample_use_retrieve_futures: Whether it polls for a whole sampling session at once.
        custom_loss_server_side: Whether it uploads custom losses.
        sample_join_sampling_session: Whether a copy of a sampling client asks for a number.
        refresh_interval_sec: Seconds until the flags from here on are fetched again.
        sample_cancel_enabled: Whether it cancels samples that nobody waits for.
        sample_cancel_max_batch_size: Samples that it cancels at once.
    """

    pjwt_auth_enabled: bool = False
    credential_default_source: str = "api_key"
    sample_dispatch_bytes_semaphore_size: int = 10 * 1024 * 1024
    inflight_response_bytes_semaphore_size: int = 50 * 1024 * 1024
    parallel_fwdbwd_chunks: bool = False
    proto_compress_fwdbwd: bool = False
    fwdbwd_max_chunk_len: int = 1024
    fwdbwd_max_chunk_bytes_count: int = 5_000_000
    fwdbwd_dispatch_bytes_semaphore_size: int = 50_000_000
    billing_exception_max_pause_duration_sec: int = 3600
    sample_no_retries: bool = False
    sample_enable_stuck_detection: bool = True
    sample_max_concurrent_requests: int = 2000
    use_pyqwest_transport: bool = True
    sample_use_retrieve_futures: bool = False
    custom_loss_server_side: bool = False
    sample_join_sampling_session: bool = False
    refresh_interval_sec: int = 300
    sample_cancel_enabled: bool = True
    sample_cancel_max_batch_size: int = 64

    @classmethod
    def parse(cls, texts: Iterable[str]) -> ClientFlags:
        """Read ``NAME=VALUE`` texts; what is not named keeps its default.

        Raises:
            EngineStartError: A name is unknown, or a value is not of its type.
        """
        given: dict[str, Any] = {}
        for text in texts:
            name, separator, value = text.partition("=")
            if not separator or name not in {item.name for item in fields(cls)}:
                known = ", ".join(sorted(item.name for item in fields(cls)))
                message = f"--flag {text!r}: expected NAME=VALUE with one of {known}"
                raise EngineStartError(message, category="user")
            given[name] = _value(text, value, getattr(cls(), name))
        return cls(**given)

    def config(self) -> dict[str, bool | int | str]:
        """The flags that clients fetch once."""
        return {name: value for name, value in self._all().items() if name not in _DYNAMIC}

    def dynamic_config(self) -> dict[str, bool | int | str]:
        """The flags that clients fetch again and again."""
        return {name: value for name, value in self._all().items() if name in _DYNAMIC}

    def _all(self) -> dict[str, bool | int | str]:
        return {item.name: getattr(self, item.name) for item in fields(self)}


def _value(text: str, value: str, default: object) -> bool | int | str:
    if isinstance(default, bool):
        if value.lower() not in _TRUE:
            raise EngineStartError(f"--flag {text!r}: expected true or false", category="user")
        return _TRUE[value.lower()]
    if isinstance(default, int):
        if not value.isdecimal() or int(value) == 0:
            raise EngineStartError(f"--flag {text!r}: expected a number above 0", category="user")
        return int(value)
    return value
