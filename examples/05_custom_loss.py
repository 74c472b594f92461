"""A loss of your own: learn from pairs to prefer whole sentences, without a reward or a reference.

The loss is a function of the logprobs of the whole batch and runs in this process, so it can do
what no loss of the service does: here it compares the two answers of each pair (SimPO, Meng et al.,
https://arxiv.org/abs/2405.14734). Needs torch.

Run: python examples/05_custom_loss.py [STEPS]
"""

import random
import sys

import torch

import tinker_ray as tinker
from tinker_ray.rl.adder import Tokenizer

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
PAIRS = 16
SHARPNESS = 2.0


def answer(tokenizer: Tokenizer, question: str, text: str) -> tinker.Datum:
    """Turn an answer into a datum; ``weights`` marks what belongs to it."""
    prompt = tokenizer.encode(question)
    tokens = [*prompt, *tokenizer.encode(text + "<|eos|>")]
    mask = [0.0] * (len(prompt) - 1) + [1.0] * (len(tokens) - len(prompt))
    return tinker.Datum(
        model_input=tinker.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": tinker.TensorData(tokens[1:], "int64"),
            "weights": tinker.TensorData(mask, "float32"),
        },
    )


def pair(tokenizer: Tokenizer, rng: random.Random) -> list[tinker.Datum]:
    """Make two answers to a sum: the one to prefer, and the one that the model would give."""
    a, b = rng.randrange(50), rng.randrange(50)
    return [answer(tokenizer, f"{a}+{b}=", text) for text in (f"It is {a + b}.", f"{a + b}")]


def preference(
    data: list[tinker.Datum], logprobs: list[torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Push the mean logprob of each first answer above that of the second one."""
    masks = [datum.loss_fn_inputs["weights"].to_torch() for datum in data]
    pairs = zip(logprobs, masks, strict=True)
    means = torch.stack([(logprob * mask).sum() / mask.sum() for logprob, mask in pairs])
    margins = means[0::2] - means[1::2]
    loss = -torch.nn.functional.logsigmoid(SHARPNESS * margins).sum()
    return loss, {"margin": margins.mean(), "preferred": (margins > 0).float().mean()}


with tinker.ServiceClient(base_url="embedded") as service:
    training = service.create_lora_training_client("tinker-ray/tiny-adder", rank=16, seed=0)
    tokenizer = training.get_tokenizer()
    rng = random.Random(0)  # noqa: S311
    for step in range(STEPS):
        batch = [datum for _ in range(PAIRS) for datum in pair(tokenizer, rng)]
        output = training.forward_backward_custom(batch, preference)
        applied = training.optim_step(tinker.AdamParams(learning_rate=2e-3))
        metrics = output.result().metrics
        applied.result()
        if step % max(1, STEPS // 10) == 0 or step == STEPS - 1:
            print(
                f"step {step + 1:3d}  loss {metrics['loss:sum'] / PAIRS:.3f}  "
                f"margin {metrics['margin']:+.2f}  preferred {metrics['preferred']:.0%}"
            )
