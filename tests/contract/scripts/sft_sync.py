"""Supervised fine-tuning in the style of SDK 0.6: blocking calls, one future after the other."""

import json

import numpy as np
import tinker
from tinker import types

NUM_STEPS = 5
EXAMPLES = [
    {"input": "2+3=", "output": "five"},
    {"input": "4 plus 4 is ", "output": "eight"},
    {"input": "10+1=", "output": "eleven"},
    {"input": "6 + 6 = ", "output": "twelve"},
]

service_client = tinker.ServiceClient(user_metadata={"script": "sft_sync"})
models = service_client.get_server_capabilities().supported_models
base_model = models[0].model_name
training_client = service_client.create_lora_training_client(base_model=base_model, rank=16, seed=7)
tokenizer = training_client.get_tokenizer()


def process_example(example: dict) -> types.Datum:
    """Train on the output only."""
    prompt_tokens = tokenizer.encode(example["input"], add_special_tokens=False)
    completion_tokens = tokenizer.encode(f"{example['output']}<|eos|>", add_special_tokens=False)
    tokens = prompt_tokens + completion_tokens
    weights = [0] * len(prompt_tokens) + [1] * len(completion_tokens)
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens=tokens[:-1]),
        loss_fn_inputs=dict(weights=weights[1:], target_tokens=tokens[1:]),
    )


def per_token_loss(result: types.ForwardBackwardOutput, data: list) -> float:
    logprobs = np.concatenate([output["logprobs"].tolist() for output in result.loss_fn_outputs])
    weights = np.concatenate([datum.loss_fn_inputs["weights"].tolist() for datum in data])
    return float(-np.dot(logprobs, weights) / weights.sum())


processed_examples = [process_example(example) for example in EXAMPLES]
losses = []
for _ in range(NUM_STEPS):
    fwdbwd_future = training_client.forward_backward(processed_examples, "cross_entropy")
    optim_future = training_client.optim_step(types.AdamParams(learning_rate=5e-3))
    fwdbwd_result = fwdbwd_future.result()
    optim_future.result()
    losses.append(per_token_loss(fwdbwd_result, processed_examples))

# Kept, and gone on with in a second client: the optimizer's state comes along.
saved = training_client.save_state(name="after-five").result()
resumed = service_client.create_training_client_from_state_with_optimizer(saved.path)
for client in (training_client, resumed):
    client.forward_backward(processed_examples, "cross_entropy").result()
    client.optim_step(types.AdamParams(learning_rate=5e-3)).result()
evaluations = [
    per_token_loss(client.forward(processed_examples, "cross_entropy").result(), processed_examples)
    for client in (training_client, resumed)
]

sampling_client = training_client.save_weights_and_get_sampling_client(name="sft-sync")
prompt = types.ModelInput.from_ints(tokenizer.encode("2+3=", add_special_tokens=False))
params = types.SamplingParams(max_tokens=8, temperature=0.0, stop=["<|eos|>"])
result = sampling_client.sample(prompt=prompt, sampling_params=params, num_samples=2).result()

print(
    json.dumps(
        {
            "losses": losses,
            "evaluations": evaluations,
            "saved": saved.path.split("/")[-2:],
            "info": training_client.get_info().model_data.model_name,
            "answers": [tokenizer.decode(sequence.tokens) for sequence in result.sequences],
        }
    )
)
