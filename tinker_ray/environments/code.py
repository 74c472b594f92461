"""Problems that are solved by a program, which is run; what goes wrong is told, and tried again.

Knows nothing of how programs are run. Invariant: an answer is judged by what its program prints for
inputs that the model was not shown; nothing that the program says of itself counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tinker_ray.environments.code_runner import CodeLimits, run_python
from tinker_ray.environments.text import Turn

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class CodeProblem:
    """A task for a program that reads standard input and writes standard output.

    Attributes:
        statement: What it has to do, as the model is told.
        cases: Pairs of input and the output that is expected, white space at line ends aside.
    """

    statement: str
    cases: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        """Refuse a problem that any program would solve.

        Raises:
            ValueError: There are no cases.
        """
        if not self.cases:
            raise ValueError(f"the problem {self.statement[:40]!r} has no cases: give at least one")


def program_of(answer: str) -> str:
    """Return the last fenced block of an answer, or all of it if there is none."""
    blocks: list[str] = _BLOCK.findall(answer)
    return blocks[-1] if blocks else answer


class CodeEnv:
    """A problem, and some attempts at it. Its functions block, so workers call it in threads.

    Args:
        problem: The problem.
        attempts: How many there are.
        limits: What each run of a program may use.
    """

    def __init__(
        self, problem: CodeProblem, *, attempts: int = 3, limits: CodeLimits | None = None
    ) -> None:
        self._problem = problem
        self._attempts = attempts
        self._limits = limits or CodeLimits()
        self._made = 0

    def __repr__(self) -> str:
        """Show the problem and the attempts so far."""
        return f"CodeEnv({self._problem.statement[:40]!r}, made={self._made}/{self._attempts})"

    def begin(self) -> str:
        """Pose the problem."""
        return (
            f"{self._problem.statement}\n"
            "Write a Python program that reads standard input and prints the answer."
        )

    def respond(self, answer: str) -> Turn:
        """Run the program on the cases, up to the first that fails."""
        self._made += 1
        program = program_of(answer)
        solved = 0
        words = "right"
        for given, expected in self._problem.cases:
            outcome = run_python(program, given, self._limits)
            words = outcome.problem or _compare(expected, outcome.stdout)
            if words:
                break
            solved += 1
        is_right = solved == len(self._problem.cases)
        return Turn(
            "right" if is_right else f"Case {solved + 1}: {words}",
            reward=float(is_right),
            done=is_right or self._made == self._attempts,
            metrics={
                "correct": float(is_right),
                "attempts": self._made,
                "solved": solved / len(self._problem.cases),
            },
        )


def _compare(expected: str, printed: str) -> str:
    """Say what is wrong with an output; empty if nothing is."""
    if _lines(expected) == _lines(printed):
        return ""
    return f"it printed {printed.strip()[:_SHOWN_CHARACTERS]!r}, which is wrong"


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
