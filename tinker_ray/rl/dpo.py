"""Direct preference optimization, as a custom loss that runs in this process.

Knows the client and pairs of completions. Invariant: the reference is what the model was before
its first step, whichever process or resume asks for it.

Source: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, equation 7: with the implicit reward
``r(y) = beta * (log pi(y|x) - log ref(y|x))``, the loss of a pair is
``-log sigmoid(r(chosen) - r(rejected))``; of a batch, its mean.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.clients.training import TrainingClient
from tinker_ray.rl.adder import END_OF_SEQUENCE, PHRASINGS, problems
from tinker_ray.rl.examples import Pair, Shuffled, completion
from tinker_ray.rl.sft import EVALUATED_SUMS, num_trained_tokens
from tinker_ray.rl.supervised_config import ExamplesConfig
from tinker_ray.rollouts import derive_seed
from tinker_ray.types import Datum, ForwardBackwardOutput, ModelInput

if TYPE_CHECKING:
    from tinker_ray.core.custom_loss import CustomLossFnV1, Tensor

FARTHEST_WRONG = 10
"""How far from the sum the rejected answers to the demo's problems are at most."""


class Reference:
    """How likely completions are for the model before training; each is asked about once.

    Args:
        sampler: Of the initial weights.
    """

    def __init__(self, sampler: SamplingClient) -> None:
        self._sampler = sampler
        self._known: dict[bytes, float] = {}

    async def logprobs(self, data: Sequence[Datum]) -> list[float]:
        """Return the sum of the logprobs of each datum's completion, in nats."""
        return list(await asyncio.gather(*(self._logprob(datum) for datum in data)))

    async def _logprob(self, datum: Datum) -> float:
        targets_T = datum.loss_fn_inputs["target_tokens"].to_numpy()
        weights_T = datum.loss_fn_inputs["weights"].to_numpy()
        tokens = [*datum.model_input.to_ints(), int(targets_T[-1])]
        content = np.asarray(tokens, np.int64).tobytes() + weights_T.tobytes()
        key = hashlib.sha256(content).digest()
        if key not in self._known:
            scored = await self._sampler.compute_logprobs_async(ModelInput.from_ints(tokens))
            logprobs_T = np.asarray(scored[1:], dtype=np.float64)
            self._known[key] = float(np.dot(logprobs_T, weights_T))
        return self._known[key]


class Preference:
    """The objective of DPO.

    Args:
        training: The model.
        reference: What it is held to.
        beta: How much.
    """

    def __init__(self, training: TrainingClient, reference: Reference, beta: float) -> None:
        self._training = training
        self._reference = reference
        self._beta = beta

    async def train(self, examples: Sequence[Pair]) -> APIFuture[dict[str, float]]:
        """Send a forward_backward; gives the metrics of :func:`preference_metrics`."""
        data = _flat(examples)
        reference = await self._reference.logprobs(data)
        loss_fn = preference_loss(reference, self._beta)
        output = self._training.forward_backward_custom(data, loss_fn)
        num_tokens = num_trained_tokens(data)

        def metrics(answer: ForwardBackwardOutput) -> dict[str, float]:
            measured = {name: float(answer.metrics[name]) for name in MEASURED}
            return {"loss": float(answer.metrics["loss:sum"]), **measured, "num_tokens": num_tokens}

        return output.then(metrics)

    async def evaluate(self, examples: Sequence[Pair]) -> APIFuture[dict[str, float]]:
        """Send a forward pass; gives the same."""
        data = _flat(examples)
        reference = np.asarray(await self._reference.logprobs(data))
        output = self._training.forward(data, "cross_entropy")

        def metrics(answer: ForwardBackwardOutput) -> dict[str, float]:
            policy = [
                np.dot(result["logprobs"].to_numpy(), datum.loss_fn_inputs["weights"].to_numpy())
                for datum, result in zip(data, answer.loss_fn_outputs, strict=True)
            ]
            rewards = self._beta * (np.asarray(policy, np.float64) - reference)
            margins = rewards[0::2] - rewards[1::2]
            loss = float(np.logaddexp(0.0, -margins).mean())
            measured = preference_metrics(rewards[0::2], rewards[1::2])
            return {"loss": loss, **measured, "num_tokens": num_trained_tokens(data)}

        return output.then(metrics)


MEASURED = ("accuracy", "margin", "chosen_reward", "rejected_reward")


def preference_metrics(
    chosen_P: np.ndarray[Any, Any], rejected_P: np.ndarray[Any, Any]
) -> dict[str, float]:
    """Summarise implicit rewards.

    Returns:
        ``accuracy``, the share of pairs whose chosen completion has the higher reward; ``margin``,
        the mean difference; ``chosen_reward`` and ``rejected_reward``, the means.
    """
    return {
        "accuracy": float((chosen_P > rejected_P).mean()),
        "margin": float((chosen_P - rejected_P).mean()),
        "chosen_reward": float(chosen_P.mean()),
        "rejected_reward": float(rejected_P.mean()),
    }


def preference_loss(reference: Sequence[float], beta: float) -> CustomLossFnV1:
    """Make the loss of a batch in which a chosen completion and its rejected one take turns.

    Args:
        reference: Logprob of each completion under the reference.
        beta: How much the policy is held to it.
    """

    def loss_fn(data: list[Datum], logprobs: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
        rewards = [
            beta * ((logprobs_T * datum.loss_fn_inputs["weights"].to_torch()).sum() - held_to)
            for datum, logprobs_T, held_to in zip(data, logprobs, reference, strict=True)
        ]
        pairs = list(zip(rewards[0::2], rewards[1::2], strict=True))
        # -log sigmoid(x) = log(exp(0) + exp(-x)), which neither over- nor underflows.
        losses = [(rejected - chosen).logaddexp(chosen.new_zeros(())) for chosen, rejected in pairs]
        values = np.array([[float(reward.detach()) for reward in pair] for pair in pairs])
        loss: Tensor = sum(losses[1:], start=losses[0]) / len(losses)
        return loss, preference_metrics(values[:, 0], values[:, 1])

    return loss_fn


def _flat(pairs: Sequence[Pair]) -> list[Datum]:
    return [datum for pair in pairs for datum in (pair.chosen, pair.rejected)]


def adder_pairs(config: ExamplesConfig, tokenizer: Any) -> Shuffled[Pair]:  # noqa: ANN401
    """Make the sums of the demo with a right answer and one that is off by a little."""
    rng = Random(derive_seed(config.seed, "wrong answers"))  # noqa: S311 - no secrets

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    def pair(a: int, b: int, rng: Random, phrasing: str) -> Pair:
        wrong = a + b
        while wrong == a + b or wrong < 0:
            wrong = a + b + rng.randint(-FARTHEST_WRONG, FARTHEST_WRONG)
        asked = encode(phrasing.format(a=a, b=b))
        answers: Callable[[int], list[int]] = lambda total: encode(f"{total}{END_OF_SEQUENCE}")  # noqa: E731
        return Pair(completion(asked, answers(a + b)), completion(asked, answers(wrong)))

    examples = [pair(a, b, rng, rng.choice(PHRASINGS)) for a, b in problems(held_out=False)]
    fixed = Random(derive_seed("held out"))  # noqa: S311 - no secrets
    apart = fixed.sample(problems(held_out=True), EVALUATED_SUMS)
    evaluated = [
        pair(a, b, fixed, PHRASINGS[place % len(PHRASINGS)]) for place, (a, b) in enumerate(apart)
    ]
    return Shuffled(examples, evaluated, config.batch_size, config.seed)
