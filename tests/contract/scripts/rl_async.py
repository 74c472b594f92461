"""GRPO in the style of SDK 0.38: one event loop, futures that are awaited, importance sampling."""

import asyncio
import json

import tinker
import torch
from tinker import TensorData, types

NUM_STEPS = 3
GROUP_SIZE = 8
PROBLEMS = [(2, 3), (14, 20), (31, 8), (45, 45)]


def make_datum(prompt: list[int], sequence: types.SampledSequence, advantage: float) -> types.Datum:
    tokens = prompt + list(sequence.tokens)
    before = len(prompt) - 1
    logprobs = torch.tensor([0.0] * before + list(sequence.logprobs))
    advantages = torch.tensor([0.0] * before + [advantage] * len(sequence.tokens))
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": TensorData.from_torch(torch.tensor(tokens[1:])),
            "logprobs": TensorData.from_torch(logprobs),
            "advantages": TensorData.from_torch(advantages),
        },
    )


async def rollout(sampling_client: tinker.SamplingClient, tokenizer, a: int, b: int, seed: int):
    prompt = tokenizer.encode(f"{a}+{b}=", add_special_tokens=False)
    answer = tokenizer.encode(f"{a + b}<|eos|>", add_special_tokens=False)
    response = await sampling_client.sample(
        prompt=types.ModelInput.from_ints(prompt),
        num_samples=GROUP_SIZE,
        sampling_params=types.SamplingParams(
            max_tokens=6, temperature=1.0, seed=seed, stop=answer[-1:]
        ),
    )
    scores = [float(list(each.tokens) == answer) for each in response.sequences]
    mean = sum(scores) / len(scores)
    data = [
        make_datum(prompt, each, score - mean)
        for each, score in zip(response.sequences, scores, strict=True)
    ]
    return data, scores


def mean_ratio(result: types.ForwardBackwardOutput, data: list[types.Datum]) -> float:
    """The sampler and the trainer must agree on what was drawn: 1 up to rounding."""
    ratios = []
    for output, datum in zip(result.loss_fn_outputs, data, strict=True):
        of_action = datum.loss_fn_inputs["advantages"].to_torch() != 0
        moved = output["logprobs"].to_torch() - datum.loss_fn_inputs["logprobs"].to_torch()
        ratios.append(moved[of_action].exp())
    return float(torch.cat(ratios).mean())


async def main() -> None:
    with tinker.ServiceClient(user_metadata={"script": "rl_async"}) as service_client:
        capabilities = await tinker.RestClient().get_server_capabilities()
        base_model = capabilities.supported_models[0].model_name
        training_client = await service_client.create_lora_training_client(
            base_model=base_model, rank=16, seed=3
        )
        tokenizer = training_client.get_tokenizer()
        rewards, losses, ratios = [], [], []
        for step in range(NUM_STEPS):
            sampling_client = await training_client.save_weights_and_get_sampling_client()
            groups = await asyncio.gather(
                *(rollout(sampling_client, tokenizer, a, b, 1000 * step + a) for a, b in PROBLEMS)
            )
            data = [datum for group, _scores in groups for datum in group]
            rewards.append([sum(scores) for _group, scores in groups])
            # Both are under way before the first is awaited: the service keeps their order.
            fwdbwd = training_client.forward_backward(data, "importance_sampling")
            optim = training_client.optim_step(types.AdamParams(learning_rate=5e-4))
            result = await fwdbwd
            await optim
            losses.append(result.metrics["loss:sum"])
            ratios.append(mean_ratio(result, data))

        path = (await training_client.save_weights_for_sampler("rl")).path
        final = await service_client.create_sampling_client(model_path=path)
        greedy = await final.sample(
            prompt=types.ModelInput.from_ints(tokenizer.encode("2+3=", add_special_tokens=False)),
            num_samples=1,
            sampling_params=types.SamplingParams(max_tokens=4, temperature=0.0),
        )
        print(
            json.dumps(
                {
                    "rewards": rewards,
                    "losses": losses,
                    "ratios": ratios,
                    "greedy": list(greedy.sequences[0].tokens),
                    "base_model": final.get_base_model() == base_model,
                }
            )
        )


asyncio.run(main())
