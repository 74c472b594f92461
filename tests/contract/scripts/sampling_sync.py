"""Sampling in the style of SDK 0.6: futures in a crowd, a retry configuration, logprobs."""

import concurrent.futures
import json

import tinker
from tinker import types
from tinker.lib.retry_handler import RetryConfig

service_client = tinker.ServiceClient()
base_model = service_client.get_server_capabilities().supported_models[0].model_name
tokenizer = service_client.create_lora_training_client(base_model, rank=4).get_tokenizer()
retry_config = RetryConfig(max_connections=4, progress_timeout=120, retry_delay_base=0.1)
sampling_client = service_client.create_sampling_client(
    base_model=base_model, retry_config=retry_config
)


def prompt_of(text: str) -> types.ModelInput:
    return types.ModelInput.from_ints(tokenizer.encode(text, add_special_tokens=False))


futures = {
    sampling_client.sample(
        prompt_of(f"{number}+{number}="),
        2,
        types.SamplingParams(max_tokens=5, seed=number, temperature=0.7, top_k=5, top_p=0.9),
    ): number
    for number in range(12)
}
drawn = {}
for future in concurrent.futures.as_completed(futures, timeout=60):
    drawn[futures[future]] = [
        (sequence.stop_reason, list(sequence.tokens)) for sequence in future.result().sequences
    ]

scored = sampling_client.sample(
    prompt=prompt_of("12+30=42"),
    num_samples=1,
    sampling_params=types.SamplingParams(max_tokens=3, temperature=0.0, stop=["9"]),
    include_prompt_logprobs=True,
    topk_prompt_logprobs=2,
).result()
logprobs = sampling_client.compute_logprobs(prompt_of("12+30=42")).result()
assert logprobs[0] is None
assert logprobs[1:] == scored.prompt_logprobs[1:]

print(
    json.dumps(
        {
            "drawn": [drawn[number] for number in sorted(drawn)],
            "scored": list(scored.sequences[0].tokens),
            "losses": logprobs[1:],
            "best": [best[0][0] for best in scored.topk_prompt_logprobs[1:]],
        }
    )
)
