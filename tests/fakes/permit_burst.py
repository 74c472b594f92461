"""A burst of samples from warm samplers to a service of unknown capacity, in simulated time."""

from __future__ import annotations

import random
from functools import partial

from tests.fakes.permit_fleet import Fleet, Sampler
from tests.fakes.permit_service import Service
from tinker_ray.limits import Ticket

CAPACITY = 200
SAMPLE_S = 1.0
BATCH = 25
BATCH_S = 0.005
"""What the caller takes to hand a batch to a sampler."""


class EvenService(Service):
    """Accepts in about 12 ms and draws for a second, nearly alike each time."""

    def draw_post_s(self) -> float:
        return 0.5 * self.post_s * self.rng.uniform(0.8, 1.4)

    def draw_sample_s(self) -> float:
        return self.sample_s + self.rng.uniform(0.005, 0.015)


class Burst(Fleet):
    """Some samples at once; run it with :meth:`finish`.

    Args:
        num_samplers: Processes; each has drawn one sample before.
        num_samples: In all, in batches to one sampler after the other.
        seed: Of everything random.
    """

    def __init__(self, num_samplers: int, num_samples: int, seed: int) -> None:
        service = EvenService(CAPACITY, 0.012, SAMPLE_S, random.Random(seed))
        super().__init__(num_samplers, service, backlog=0, ledger_s=0.00005, seed=seed)
        self.num_samples = num_samples
        self._answers = 0
        samplers = list(self.samplers.values())
        for sampler in samplers:
            sampler.limits.join()
        self.run(3.0)
        self.reset()
        self._answers, self._began_at = 0, self.now
        for number in range(num_samples // BATCH):
            sampler = samplers[number % num_samplers]
            self._at(self.now + (number + 1) * BATCH_S, partial(self._hand_over, sampler))

    def finish(self) -> float:
        """Run to the last answer, and return the seconds that it took."""
        while self._answers < self.num_samples:
            self.run(0.01)
        return self.now - self._began_at

    def _hand_over(self, sampler: Sampler) -> None:
        for _ in range(BATCH):
            sampler.limits.join()
        self._work(sampler)

    def _answered(self, sampler: Sampler, ticket: Ticket) -> None:
        self.service.leave()
        self.at_work.add(-1, self.now)
        sampler.limits.finished(ticket)
        self._answers += 1
        self._work(sampler)
