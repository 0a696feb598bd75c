"""Progress bars on standard error."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from gateway.api import Progress, ProgressCallback, no_progress
from gateway.config import size_text


class _Amount(ProgressColumn):
    """``1.5 GiB / 3 GiB`` or ``17 / 40 files``."""

    def render(self, task: Task) -> Text:
        unit = str(task.fields["unit"])
        done, total = int(task.completed), None if task.total is None else int(task.total)
        if unit == "bytes":
            return Text(size_text(done) if total is None else f"{size_text(done)} / {size_text(total)}")
        return Text(f"{done:,} {unit}" if total is None else f"{done:,} / {total:,} {unit}")


@contextlib.contextmanager
def shown(console: Console, *, wanted: bool) -> Iterator[ProgressCallback]:
    """A callback that draws one bar a phase; they vanish at the end. Draws nothing unless `console` is a terminal."""
    if not wanted or not console.is_terminal:
        yield no_progress
        return
    lock = threading.Lock()
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), _Amount(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:

        def draw(progress: Progress) -> None:
            with lock:
                task = tasks.get(progress.phase)
                if task is None:
                    task = bars.add_task(progress.phase, total=progress.total, unit=progress.unit)
                    tasks[progress.phase] = task
                bars.update(task, completed=progress.done, total=progress.total, unit=progress.unit)

        yield draw
