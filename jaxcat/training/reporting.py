"""What a run shows and writes: the live line, the entries of epochs, and the learning curve at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.progress import Progress, TextColumn

from jaxcat.runs.meta import Meta, best_epoch, is_validated
from jaxcat.system.console import Console, OneLine, columns, in_notebook
from jaxcat.system.files import replacing, write_text
from jaxcat.training.describe import NOTHING_HELD_OUT, next_command
from jaxcat.training.stages import beginnings_of, entries_of, epochs_of
from jaxcat.training.writers import CANDIDATES, WRITERS, Writer, in_words, lines_of, text_of, writing_to
from jaxcat.wording import counted

SECONDS_BETWEEN_UPDATES = 0.5  # reading the running sums waits for the device, so not at every step


class Pace:
    """The progress and speed of an epoch.

    Attributes:
        step: number of steps of the epoch that are done.
    """

    def __init__(self, step: int, *, images: int, batch_size: int):
        self.step, self._images, self._batch_size = step, images, batch_size
        self._from, self._began = step, time.perf_counter()

    def restart(self) -> None:
        """Measures speed from here on, to leave compilation out; does nothing if no images of the epoch are left."""
        if self.step * self._batch_size < self._images:
            self._from, self._began = self.step, time.perf_counter()

    def images_per_second(self) -> float:
        done = min(self.step * self._batch_size, self._images) - self._from * self._batch_size
        return max(0, done) / (time.perf_counter() - self._began)


class Reporter:
    """Shows one run and hands its epochs to the writers. Use as a context manager.

    Prints and writes only if `leading`, as in process 0.

    Attributes:
        console: where the run prints.
        awaits_first_step: whether the first step of this start is still to be reported.
    """

    def __init__(self, workdir: Path, history: Sequence[dict], *, config: ConfigDict, leading: bool = True):
        self.console, self.awaits_first_step = Console(quiet=not leading), False
        self._workdir, self._history, self._epochs, self._leading = workdir, history, epochs_of(config), leading
        self._writers: list[Writer] = [make(workdir, config) for make in WRITERS] if leading else []
        self._begun: list[Writer] = []
        self._progress: Progress | None = None
        self._line = OneLine(self.console)
        self._updated = self._compiling = 0.0

    def __enter__(self) -> Reporter:
        try:
            for writer in self._writers:
                writer.begin(self._history)
                self._begun.append(writer)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_progress()
        for writer in self._begun:
            writer.close()

    def say(self, text: str) -> None:
        """Prints a line."""
        self._stop_progress()
        self.console.print(text, markup=False)

    def compiling(self) -> None:
        """Says that the first step is being compiled; `first_step` must be called when it is done."""
        self.say("compiling the first step …")
        self.awaits_first_step, self._compiling = True, time.perf_counter()

    def first_step(self) -> None:
        self.awaits_first_step = False
        seconds = time.perf_counter() - self._compiling
        self.say(f"first step done after {seconds:.1f} s, compilation included")

    def due(self) -> bool:
        """Whether it is time to update the live line; never if the output is neither a terminal nor a notebook."""
        waited = time.monotonic() - self._updated
        shown = self.console.is_terminal or in_notebook()
        return shown and self._leading and waited > SECONDS_BETWEEN_UPDATES

    def live(self, epoch: int, pace: Pace, measured: Mapping[str, float], *, steps: int) -> None:
        """Updates the live line of the current epoch."""
        shown = f"{pace.images_per_second():.0f} images/s  {in_words(measured, between='  ')}"
        self._updated = time.monotonic()
        if in_notebook():
            self._line.show(f"epoch {epoch}/{self._epochs}  step {pace.step} of {steps}  {shown}")
            return
        if self._progress is None:
            figures = TextColumn("{task.fields[figures]}")
            self._progress = Progress(*columns(), figures, console=self.console, transient=True)
            self._progress.start()
            self._progress.add_task(f"epoch {epoch}/{self._epochs}", total=steps, figures="")
        self._progress.update(self._progress.task_ids[0], completed=pace.step, figures=shown)

    def _stop_progress(self) -> None:
        self._line.show("")
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def epoch(self, entry: dict) -> None:
        """Hands the entry of an epoch to the writers."""
        self._stop_progress()
        for writer in self._writers:
            writer.epoch(entry)

    def settle(self, config: ConfigDict) -> None:
        """Hands the final config to the writers, if a run has found some of its values in its data."""
        for writer in self._writers:
            writer.settle(config)

    def finish(self, history: Sequence[dict], reason: str, *, then: str = "") -> None:
        """Draws the learning curve; says why training ended, what it reached, and what is next: `then` or a command."""
        best = best_epoch(history)
        if not self._leading or best is None:
            return
        then, last = then or next_command(self._workdir, history), history[-1]
        if CANDIDATES in last:
            for line in estimates(last):
                self.say(line)
            self.say(f"done: {reason}; {then}")
            return
        with writing_to(self._workdir):
            learning_curve(history, self._workdir / "learning_curve.png")
        found = f"{NOTHING_HELD_OUT}, so the latest step counts as best"
        if is_validated(best):
            found = f"best validation accuracy {best['validation/accuracy']:.4f} in epoch {best['epoch']}"
            stage = last.get("stage", 0)
            if line := course_of(entries_of(history, stage), whole=not stage and len(history) >= self._epochs):
                self.say(line)
        self.say(f"done: {reason}; {found}; {then}")


# Part of the entry of an exact head → what its accuracy is.
ESTIMATES = {"leave_one_out": "estimated on train (leave-one-out)", "validation": "measured on validation"}


def estimates(entry: Mapping[str, Any]) -> Iterator[str]:
    """Lines with the accuracy of an exact head, as estimated on train and as measured, with 95 % intervals."""
    for split, what in ESTIMATES.items():
        if entry[f"{split}/accuracy"] is None:
            yield f"{what}: {NOTHING_HELD_OUT}"
            continue
        low, high = entry[f"{split}/interval"]
        yield (
            f"{what}: accuracy {entry[f'{split}/accuracy']:.4f} (95 % interval {low:.3f} to {high:.3f}), loss "
            f"{entry[f'{split}/loss']:.4f}, {counted(entry[f'{split}/count'], 'image')}"
        )


def course_of(history: Sequence[dict], *, whole: bool) -> str:
    """One line: whether the validation loss of a trained run was still falling at its end, or had turned.

    "" for fewer than three epochs, too few to say.

    Args:
        whole: whether all epochs that were asked for are done; else the run was stopped, and more epochs are not
            advised.
    """
    if len(history) < 3:
        return ""
    losses = [entry["validation/loss"] for entry in history]
    lowest, last = min(history, key=lambda entry: entry["validation/loss"]), history[-1]
    if max(losses) - min(losses) < 1e-4:
        return "the validation loss hardly changed: is --config.optim.learning_rate too small?"
    if lowest["epoch"] > 0.9 * last["epoch"]:
        advice = "; more epochs may help (--config.epochs)" if whole else ""
        return f"the validation loss was still falling at the end (lowest in epoch {lowest['epoch']}){advice}"
    return (
        f"the validation loss had turned: it was lowest ({lowest['validation/loss']:.4f}) in epoch {lowest['epoch']} "
        f"of {last['epoch']}"
    )


def complete_reports(workdir: Path, meta: Meta) -> None:
    """Completes the config, metrics and learning curve of a run that was killed after its last checkpoint."""
    history, curve = list(meta.history), workdir / "learning_curve.png"
    config, metrics, text = workdir / "config.json", workdir / "metrics.jsonl", lines_of(history)
    with writing_to(workdir):
        if not config.is_file():
            write_text(config, text_of(meta.asked))
        if not metrics.is_file() or metrics.read_text() != text:
            write_text(metrics, text)
        if CANDIDATES in history[-1]:
            return  # an exact head has no curve
        if not curve.is_file() or curve.stat().st_mtime < metrics.stat().st_mtime:
            learning_curve(history, curve)


def learning_curve(history: Sequence[dict], path: Path) -> None:
    """Draws loss and accuracy of train and validation by epoch, as a PNG; without validation, of train alone.

    A dotted line stands where a stage of the run begins.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [entry["epoch"] for entry in history]
    splits = ("train", "validation") if any(map(is_validated, history)) else ("train",)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split in splits:
            axes.plot(epochs, [entry[f"{split}/{quantity}"] for entry in history], marker=".", label=split)
        for epoch, stage in beginnings_of(history):
            axes.axvline(epoch - 0.5, color="gray", linestyle=":", label=f"stage {stage} begins")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as aside:
        figure.savefig(aside, format="png", dpi=120)
