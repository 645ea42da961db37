"""What a run says: the live line, one summary line an epoch, metrics.jsonl, TensorBoard, the learning curve."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from jaxcat.checkpoint_meta import best_epoch
from jaxcat.console import Console
from jaxcat.errors import CheckpointError
from jaxcat.network import Network, Tree
from jaxcat.sharding import padded_batch_size
from jaxcat.start import Start
from jaxcat.steps import TrainState

SECONDS_BETWEEN_UPDATES = 0.5  # reading the running sums waits for the device, so not at every step


class Pace:
    """Where an epoch stands and how fast it goes.

    Attributes:
        step: of the epoch, done.
    """

    def __init__(self, step: int, *, pictures: int, batch_size: int):
        self.step, self._pictures, self._batch_size = step, pictures, batch_size
        self._from, self._began = step, time.perf_counter()

    def restart(self) -> None:
        """Measure from here on, to leave compilation out; unless nothing of the epoch is left to measure."""
        if self.step * self._batch_size < self._pictures:
            self._from, self._began = self.step, time.perf_counter()

    def images_per_second(self) -> float:
        done = min(self.step * self._batch_size, self._pictures) - self._from * self._batch_size
        return max(0, done) / (time.perf_counter() - self._began)


class Reporter:
    """Reports the epochs of one run; silent, and without files, when not `leading` (process 0).

    metrics.jsonl is rewritten from `history` at the start: after a resume no event appears twice. config.json is there
    to be read; the config in the checkpoint is the one that counts.
    """

    def __init__(self, workdir: Path, history: list[dict], *, config: ConfigDict, steps: int, leading: bool = True):
        self.workdir, self.epochs, self.steps, self.leading = workdir, config.epochs, steps, leading
        self.console = Console(quiet=not leading)
        self._progress: Progress | None = None
        self._updated = 0.0
        self._board = None
        if leading:
            with _written(workdir):
                write_aside(workdir / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")
                write_aside(workdir / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in history))
                if importlib.util.find_spec("tensorboardX"):
                    from tensorboardX import SummaryWriter

                    after = history[-1]["step"] + 1 if history else 0  # of an earlier start, what no checkpoint kept
                    self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=after)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_progress()
        if self._board is not None:
            with contextlib.suppress(OSError):  # a disk that is full: said where it matters, at the checkpoint
                self._board.close()

    def say(self, text: str = "") -> None:
        self._stop_progress()
        self.console.print(text, markup=False)

    def due(self) -> bool:
        """Whether the live line wants fresh figures; never when the output is not a terminal."""
        return self.console.is_terminal and self.leading and time.monotonic() - self._updated > SECONDS_BETWEEN_UPDATES

    def live(self, epoch: int, pace: Pace, *, loss: float, accuracy: float) -> None:
        """Update the line of the epoch under way."""
        if self._progress is None:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(
                *columns, TextColumn("{task.fields[figures]}"), console=self.console, transient=True
            )
            self._progress.start()
            self._progress.add_task(f"epoch {epoch}/{self.epochs}", total=self.steps, figures="")
        figures = f"{pace.images_per_second():.0f} images/s  loss {loss:.4f}  accuracy {accuracy:.4f}"
        self._progress.update(self._progress.task_ids[0], completed=pace.step, figures=figures)
        self._updated = time.monotonic()

    def _stop_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def epoch(self, record: dict) -> None:
        """Print the summary of an epoch and append it to metrics.jsonl and TensorBoard."""
        if not self.leading:
            return
        self.say(
            f"epoch {record['epoch']:>3}/{self.epochs}  step {record['step']:>6}"
            f"  train loss {record['train/loss']:.4f} accuracy {record['train/accuracy']:.4f}"
            f"  validation loss {record['validation/loss']:.4f} accuracy {record['validation/accuracy']:.4f}"
            f"  {record['images_per_second']:.0f} images/s  {record['seconds']:.1f} s"
        )
        with _written(self.workdir), open(self.workdir / "metrics.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, record["step"])

    def finish(self, history: list[dict], reason: str) -> None:
        """Draw the learning curve; say why training ended, which epoch was best, and what comes next."""
        best = best_epoch(history)
        if self.leading and best is not None:
            with _written(self.workdir):
                learning_curve(history, self.workdir / "learning_curve.png")
            accuracy = f"best validation accuracy {best['validation/accuracy']:.4f} in epoch {best['epoch']}"
            self.say(f"done: {reason}; {accuracy}; {next_command(self.workdir)} measures it")


@contextlib.contextmanager
def _written(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"--workdir {workdir}: cannot be written: {error.strerror}. Its checkpoints stay good: make room or give "
            "access, and the same command continues"
        ) from error


def next_command(workdir: Path) -> str:
    """What to run after training."""
    return f"python -m jaxcat.evaluate --workdir {shlex.quote(str(workdir))}"


def complete_reports(workdir: Path, history: list[dict]) -> None:
    """Write what a kill between the last checkpoint and the end of a run has left undone; usually nothing."""
    metrics, curve = workdir / "metrics.jsonl", workdir / "learning_curve.png"
    text = "".join(json.dumps(record) + "\n" for record in history)
    with _written(workdir):
        if not metrics.is_file() or metrics.read_text() != text:
            write_aside(metrics, text)
        if not curve.is_file() or curve.stat().st_mtime < metrics.stat().st_mtime:
            learning_curve(history, curve)


def describe_run(
    console: Console,
    config: ConfigDict,
    run: Start,
    state: TrainState,
    *,
    source: str,
    length: dict[str, int],
    mesh: Mesh,
) -> None:
    """What a run says of itself before it compiles; `source` are the words of `Source.describe`."""
    network, provenance = run.network, run.meta["provenance"]
    border = "counts" if network.pool_counts_padding else "leaves out"
    data, optim, classes = config.data, config.optim, run.meta["classes"]
    weights = [str(provenance[key]) for key in ("source", "workdir", "step") if provenance.get(key)]
    if "sha256" in provenance:
        weights.append(f"sha256 {provenance['sha256'][:16]}…")
    padded = padded_batch_size(config.batch_size, mesh)
    padding = f", {padded - config.batch_size} rows of padding" if padded > config.batch_size else ""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in (
        ("weights", "  ".join(weights)),
        ("data", f"{data.source} {data.dir or data.name}  {source}"),
        ("classes", f"{len(classes)}: {', '.join(classes[:10])}{' …' if len(classes) > 10 else ''}"),
        ("pixels", f"{data.image_size}×{data.image_size}, {data.resize}, augment {data.augment}"),
        ("", f"{network.preprocessing}, average pooling {border} the border"),
        ("trained", _sizes(state.trained, network)),
        ("", f"{optim.name}, learning rate {optim.learning_rate:g}, {optim.schedule}"),
        ("frozen", f"{_sizes(run.frozen['params'], network)}, BatchNorm on stored statistics"),
        ("devices", f"{mesh.size} × {mesh.devices.flat[0].device_kind}, {config.model.dtype}"),
        ("batch", f"{config.batch_size}{padding}"),
        ("length", f"{config.epochs} epochs of {length['steps_per_epoch']} steps, now at step {int(state.step)}"),
    ):
        table.add_row(name, Text(fact))
    console.print(table)
    for warning in _warnings(config, run):
        console.print(f"warning: {warning}", markup=False)


def _warnings(config: ConfigDict, run: Start) -> Iterator[str]:
    if config.model.train_bn and config.batch_size < 16:
        yield f"--config.batch_size={config.batch_size} gives noisy statistics with --config.model.train_bn=True"
    if config.bottleneck.views == 1 and config.data.augment != "none":
        yield (
            f"--config.data.augment={config.data.augment} with --config.bottleneck.views=1 shows one view in every "
            "epoch: keep more views, or augment anew with --config.bottleneck.views=0"
        )
    published = run.meta["provenance"].get("evaluation") or {}
    if published.get("resize", config.data.resize) != config.data.resize:
        yield (
            f"these weights were measured with --config.data.resize={published['resize']}, this run has "
            f"{config.data.resize}"
        )
    if run.meta["provenance"]["source"] == "scratch" and jax.tree.leaves(run.frozen):
        yield "the frozen blocks were never trained: --config.model.weights=none without --config.init_from"


def _sizes(tree: Tree, network: Network) -> str:
    leaves = jax.tree.leaves(tree)
    stages = [stage for stage in network.stages if jax.tree.leaves(tree.get(stage, {}))]
    names = "nothing" if not stages else stages[0] if len(stages) == 1 else f"{stages[0]} … {stages[-1]}"
    return f"{names}: {len(leaves)} tensors, {sum(leaf.size for leaf in leaves):,} parameters"


def learning_curve(history: list[dict], path: Path) -> None:
    """A PNG of loss and accuracy, train and validation, by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [record["epoch"] for record in history]
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split in ("train", "validation"):
            axes.plot(epochs, [record[f"{split}/{quantity}"] for record in history], marker=".", label=split)
        axes.set_xlabel("epoch")
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
        axes.legend()
    temporary = aside(path)
    figure.savefig(temporary, format="png", dpi=120)
    os.replace(temporary, path)


def aside(path: Path) -> Path:
    """Where to write before renaming to `path`. Nothing is there: in a workdir from elsewhere it might be a link."""
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    return temporary


def write_aside(path: Path, text: str) -> None:
    """Write a whole file or nothing: a crash leaves the old one."""
    temporary = aside(path)
    temporary.write_text(text)
    os.replace(temporary, path)
