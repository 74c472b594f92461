"""Opening sampling sessions: how samplers of base models and checkpoints come into being."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_ray.clients.sampling import SamplingClient

if TYPE_CHECKING:
    from tinker_ray.clients.session import ClientSession
    from tinker_ray.types import RetryConfig


def open_sampler(
    session: ClientSession,
    *,
    base_model: str | None,
    model_path: str | None,
    retry_config: RetryConfig | None,
    record_stability_info: bool,
) -> SamplingClient:
    """Open a sampling session on a base model or a checkpoint, and return its client.

    Raises:
        ValueError: Neither is given, or the path is no ``tinker://`` path.
        TinkerError: The service knows it not; where an event loop runs, the first use raises it.
    """
    if base_model is None and model_path is None:
        message = "create_sampling_client needs model_path or base_model"
        raise ValueError(message)
    if model_path is not None and not model_path.startswith("tinker://"):
        message = f"model_path={model_path!r} must start with tinker://"
        raise ValueError(message)

    async def work() -> SamplingClient:
        runtime = await session.runtime()
        sampling_session_id = await runtime.session.create_sampling_session(
            await runtime.number("sampling_session"), base_model=base_model, model_path=model_path
        )
        return SamplingClient(
            session,
            sampling_session_id,
            retry_config,
            base_model=base_model,
            record_stability_info=record_stability_info,
        )

    return SamplingClient.promised(work())
