"""Supervised fine-tuning: teach the model to answer sums in words, with cross_entropy.

Run: python examples/02_train_sft.py [STEPS]
"""

import random
import sys

import tinker_ray as tinker
from tinker_ray.rl.adder import Tokenizer

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 40
BATCH_SIZE = 32


def example(tokenizer: Tokenizer, rng: random.Random) -> tinker.Datum:
    """Turn a sum and its answer into a datum that is trained on the answer only."""
    a, b = rng.randrange(50), rng.randrange(50)
    prompt = tokenizer.encode(f"How much is {a}+{b}? ")
    answer = tokenizer.encode(f"It is {a + b}.<|eos|>")
    tokens = [*prompt, *answer]
    weights = [0.0] * (len(prompt) - 1) + [1.0] * len(answer)
    return tinker.Datum(
        model_input=tinker.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": tinker.TensorData(tokens[1:], "int64"),
            "weights": tinker.TensorData(weights, "float32"),
        },
    )


with tinker.ServiceClient(base_url="embedded") as service:
    training = service.create_lora_training_client("tinker-ray/tiny-adder", rank=16, seed=0)
    tokenizer = training.get_tokenizer()
    rng = random.Random(0)  # noqa: S311
    for step in range(STEPS):
        batch = [example(tokenizer, rng) for _ in range(BATCH_SIZE)]
        # Sent together: the service applies them in this order.
        output = training.forward_backward(batch, "cross_entropy")
        applied = training.optim_step(tinker.AdamParams(learning_rate=5e-3))
        num_answer_tokens = sum(datum.loss_fn_inputs["weights"].to_numpy().sum() for datum in batch)
        loss = output.result().metrics["loss:sum"] / num_answer_tokens
        applied.result()
        if step % max(1, STEPS // 10) == 0 or step == STEPS - 1:
            print(f"step {step + 1:3d}  loss per answer token {loss:.3f}")

    sampler = training.save_weights_and_get_sampling_client()
    for question in ("How much is 3+4? ", "How much is 20+22? "):
        response = sampler.sample(
            tinker.ModelInput.from_ints(tokenizer.encode(question)),
            num_samples=1,
            sampling_params=tinker.SamplingParams(max_tokens=16, temperature=0.0),
        ).result()
        print(question, tokenizer.decode(response.sequences[0].tokens))
