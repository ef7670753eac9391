"""Progress in the terminal: one bar per thing that takes more than a few seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# Results go to standard output, where a script reads them; progress goes beside it.
console = Console(stderr=True)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show bars while the block runs; where output is no terminal, nothing is drawn over and over."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress


def counter(progress: Progress, description: str) -> Callable[[int], Callable[[], None]]:
    """A bar that starts when its total is known: call with the total, then call the result after each item."""

    def start(total: int) -> Callable[[], None]:
        bar = progress.add_task(description, total=total)
        return lambda: progress.advance(bar)

    return start


def epoch_bar(progress: Progress, description: str, epochs: int) -> Callable[[dict[str, Any]], None]:
    """A bar of training epochs that shows the validation error."""
    bar = progress.add_task(description, total=epochs)

    def show(figures: dict[str, Any]) -> None:
        error = figures.get("val_mae_years")
        text = f"{description}, validation MAE {error:.1f} y" if error is not None else description
        progress.update(bar, completed=int(figures["epoch"]) + 1, description=text)

    return show
