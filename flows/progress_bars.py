"""Progress of whatever takes more than a few seconds: a bar in a terminal, a line a minute in a job's log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Results go to standard output, where a script reads them; progress goes beside it.
console = Console(stderr=True)
LINE_EVERY_S = 60.0
# Scans take seconds to minutes each, so a rate over less than this jumps about.
RATE_OVER_S = 600.0


class RateColumn(ProgressColumn):
    """How many items are done per second or minute."""

    def render(self, task: Task) -> Text:
        """The rate of late, or nothing before there is one."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else rate(speed))


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show bars while the block runs; where output is no terminal, nothing is drawn over and over."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=RATE_OVER_S)
    with shown as progress:
        yield progress


def counter(progress: Progress, description: str) -> Callable[[int], Callable[[], None]]:
    """A bar that starts when its total is known: call with the total, then call the result after each item."""

    def start(total: int) -> Callable[[], None]:
        if not progress.console.is_terminal:
            return LogLines(description, total, progress.console.print).advance
        bar = progress.add_task(description, total=total)
        return lambda: progress.advance(bar)

    return start


class LogLines:
    """Says now and then how far something is, where there is no terminal: a batch job's log, a container's."""

    def __init__(
        self, description: str, total: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._description = description
        self._total = total
        self._say = say
        self._clock = clock
        self._started = self._said = clock()
        self._done = 0
        # Slices of a cohort advance from threads of their own.
        self._lock = threading.Lock()

    def advance(self) -> None:
        """One more is done."""
        with self._lock:
            self._done += 1
            now = self._clock()
            if now - self._said >= LINE_EVERY_S:
                self._said = now
                self._say(f"{self._description}: {pace(self._done, self._total, now - self._started)}")


def pace(done: int, total: int, elapsed_s: float) -> str:
    """How far, how fast, how long still.

    >>> pace(1200, 10000, 2400.0)
    '1,200 of 10,000, 30.0 per minute, about 4 h 53 min left'
    """
    left_min = round((total - done) * elapsed_s / done / 60)
    left = f"{left_min // 60} h {left_min % 60} min" if left_min >= 60 else f"{left_min} min"
    return f"{done:,} of {total:,}, {rate(done / elapsed_s)}, about {left} left"


def rate(per_second: float) -> str:
    """A rate in the unit that gives a readable number.

    >>> rate(12.5), rate(0.21)
    ('12.5 per second', '12.6 per minute')
    """
    return f"{per_second:.1f} per second" if per_second >= 1 else f"{60 * per_second:.1f} per minute"


def epoch_bar(progress: Progress, description: str, epochs: int) -> Callable[[dict[str, Any]], None]:
    """A bar of training epochs that shows the validation error."""
    bar = progress.add_task(description, total=epochs)

    def show(figures: dict[str, Any]) -> None:
        error = figures.get("val_mae_years")
        text = f"{description}, validation MAE {error:.2g} y" if error is not None else description
        progress.update(bar, completed=int(figures["epoch"]) + 1, description=text)

    return show
