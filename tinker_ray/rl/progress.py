"""What a run says while it goes on: a line per step, on a terminal with a live status below it.

Knows nothing of training. Invariant: without a terminal the output is plain lines, nothing is
redrawn.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from tinker_ray.rl.record import StepRecord
from tinker_ray.rl.transcript import Excerpt

HEADINGS = ("step", "reward", "accuracy", "held-out", "entropy", "kl", "tokens/s", "in flight")
WIDTH = 9


class Progress:
    """Prints the story of a run.

    Use as a context manager: the live status ends with the block.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True, quiet=quiet)
        self._status: Status | None = None
        self._has_headings = False

    def __enter__(self) -> Self:
        """Begin the live status, if there is a terminal."""
        if self._console.is_terminal:
            self._status = self._console.status("starting", refresh_per_second=4)
            self._status.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the live status."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def status(self, text: str) -> None:
        """Say what is going on right now; shown on terminals only."""
        if self._status is not None:
            self._status.update(Text(text))

    def say(self, text: str = "") -> None:
        """Print a line."""
        self._console.print(Text(text))

    def step(self, record: StepRecord, steps: int) -> None:
        """Print the line of a step, under headings that stand there once."""
        if not self._has_headings:
            self._has_headings = True
            self._console.print(Text(_row(HEADINGS), style="bold"))
        held_out = "" if record.eval_accuracy is None else f"{record.eval_accuracy:.3f}"
        cells = (
            f"{record.step}/{steps}",
            f"{record.reward:.3f}",
            f"{record.accuracy:.3f}",
            held_out,
            f"{record.entropy:.3f}",
            f"{record.kl_sample_train:+.1e}",
            f"{record.tokens_per_s:,.0f}",
            f"{record.peak_in_flight}",
        )
        self._console.print(Text(_row(cells)))

    def evaluated(self, step: int, steps: int, accuracy: float) -> None:
        """Print the row of an evaluation, which may come after those of later steps."""
        cells = (f"{step}/{steps}", "", "", f"{accuracy:.3f}")
        self._console.print(Text(_row(cells)))

    def excerpts(self, title: str, excerpts: list[Excerpt]) -> None:
        """Print a few episodes, good ones in green."""
        self._console.print(Text(title, style="bold"))
        for excerpt in excerpts:
            self._console.print(
                Text(f"  {excerpt}", style="green" if excerpt.reward > 0 else "red")
            )


def _row(cells: tuple[str, ...]) -> str:
    return " ".join(cell.rjust(WIDTH) for cell in cells)
