"""An executor over a Ray cluster, for code that takes one of the standard library's kind.

Programs that a model might have written are run, many at once, in processes on every node; the
same executor takes the Tinker cookbook's rollouts:

    tinker_cookbook.rl.rollouts.set_rollout_executor(tinker_ray.RayExecutor())

Starts Ray on this machine if there is no cluster. Run: python examples/10_executor.py [TASKS]
"""

import concurrent.futures
import logging
import sys

import tinker_ray as tinker
from tinker_ray.environments.code_runner import CodeLimits, CodeOutcome, run_python

TASKS = int(sys.argv[1]) if len(sys.argv) > 1 else 12
LIMITS = CodeLimits(wall_s=20, cpu_s=2, memory_bytes=256 * 1024**2)
PROGRAMS = ("print(int(input()) ** 2)", "print(undefined)", "x = bytearray(10**9)")


def judge(number: int) -> CodeOutcome:
    """Run one of the programs with a number for its input; what blocks runs in a thread."""
    logging.getLogger("judge").info("program %d", number)
    return run_python(PROGRAMS[number % len(PROGRAMS)], f"{number}\n", LIMITS)


def main() -> None:
    """Run the programs, and show what became of them as they end."""
    logging.basicConfig(level=logging.INFO, format="from a worker: %(name)s: %(message)s")
    tinker.init(num_cpus=2)
    with tinker.RayExecutor(max_workers=2, tasks_per_worker=4) as executor:
        futures = {executor.submit(judge, number): number for number in range(TASKS)}
        for future in concurrent.futures.as_completed(futures):
            outcome = future.result()
            words = outcome.problem.splitlines()[-1] if outcome.problem else "ok"
            print(f"program {futures[future]:2d}: {words:50s} {outcome.stdout.strip()}")
        print(executor)
    tinker.shutdown()


main()
