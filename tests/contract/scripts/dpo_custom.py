"""DPO with a loss of one's own, by ``forward_backward_custom``, for both generations."""

import json

import tinker
import torch
from tinker import types

BETA = 0.2
NUM_STEPS = 3
PAIRS = [("7+5=", "12", "13"), ("20 plus 2 is ", "22", "202"), ("1+1=", "2", "11")]

service_client = tinker.ServiceClient()
base_model = service_client.get_server_capabilities().supported_models[0].model_name
training_client = service_client.create_lora_training_client(base_model, rank=8, seed=11)
tokenizer = training_client.get_tokenizer()
reference = service_client.create_sampling_client(base_model=base_model)


def encode(text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


examples = []
for prompt, chosen, rejected in PAIRS:
    for answer in (chosen, rejected):
        start, end = encode(prompt), encode(f"{answer}<|eos|>")
        tokens = start + end
        weights = [0.0] * (len(start) - 1) + [1.0] * len(end)
        logprobs = reference.compute_logprobs(types.ModelInput.from_ints(tokens)).result()
        examples.append(
            {
                "datum": types.Datum(
                    model_input=types.ModelInput.from_ints(tokens[:-1]),
                    loss_fn_inputs={"target_tokens": tokens[1:], "weights": weights},
                ),
                "weights": torch.tensor(weights),
                "reference": sum(v * w for v, w in zip(logprobs[1:], weights, strict=True)),
            }
        )


def dpo_loss(data: list, logprobs: list) -> tuple[torch.Tensor, dict]:
    sums = [(each * one["weights"]).sum() for each, one in zip(logprobs, examples, strict=True)]
    moved = [each - one["reference"] for each, one in zip(sums, examples, strict=True)]
    margins = torch.stack([moved[index] - moved[index + 1] for index in range(0, len(moved), 2)])
    loss = -torch.nn.functional.logsigmoid(BETA * margins).mean()
    return loss, {"dpo_loss": loss.item(), "margin": margins.mean().item()}


data = [each["datum"] for each in examples]
losses, margins = [], []
for _ in range(NUM_STEPS):
    backward = training_client.forward_backward_custom(data, dpo_loss).result()
    training_client.optim_step(types.AdamParams(learning_rate=2e-3)).result()
    losses.append(backward.metrics["dpo_loss"])
    margins.append(backward.metrics["margin"])

print(json.dumps({"losses": losses, "margins": margins}))
