"""Writers, which receive the entry of every epoch. A new writer is a class here that `WRITERS` lists."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ml_collections import ConfigDict

from jaxcat.errors import CheckpointError, ConfigError, one_line
from jaxcat.extras import install
from jaxcat.system.console import Console
from jaxcat.system.files import write_errors_as, write_text
from jaxcat.training.stages import epochs_of

CANDIDATES = "candidates"  # key in the entry of an exact head: the ranges of blocks and penalties compared


class Writer(Protocol):
    """Receives the epochs of one run, in process 0 only."""

    def begin(self, history: Sequence[dict]) -> None:
        """Starts, or continues after the epochs in `history`; removes what an earlier start wrote after them."""

    def epoch(self, entry: dict) -> None:
        """Writes one more epoch."""

    def settle(self, config: ConfigDict) -> None:
        """Takes the final config of a run that has found some of its values in its data."""

    def close(self) -> None:
        """Closes the writer, also if the run did not finish."""


def writing_to(workdir: Path) -> contextlib.AbstractContextManager[None]:
    """Turns system errors into one that says what to do."""
    advice = ". Its checkpoints stay good: free space or give access, and the same command continues"
    return write_errors_as(CheckpointError, f"--workdir {workdir}", advice)


class MetricsFile:
    """metrics.jsonl, a JSON object for each epoch; and config.json for people (jaxcat reads that in a checkpoint)."""

    def __init__(self, workdir: Path, config: ConfigDict):
        self._workdir, self._config = workdir, config

    def begin(self, history: Sequence[dict]) -> None:
        with writing_to(self._workdir):
            write_text(self._workdir / "config.json", text_of(self._config))
            write_text(self._workdir / "metrics.jsonl", lines_of(history))

    def settle(self, config: ConfigDict) -> None:
        with writing_to(self._workdir):
            write_text(self._workdir / "config.json", text_of(config))

    def epoch(self, entry: dict) -> None:
        with writing_to(self._workdir), open(self._workdir / "metrics.jsonl", "a") as file:
            file.write(lines_of([entry]))

    def close(self) -> None:
        pass


class EpochLines:
    """One line for each epoch on the console; none for an exact head, whose figures end the run."""

    def __init__(self, workdir: Path, config: ConfigDict):
        self._epochs, self._console = epochs_of(config), Console()

    def begin(self, history: Sequence[dict]) -> None:
        pass

    def epoch(self, entry: dict) -> None:
        if CANDIDATES in entry:
            return
        splits = "  ".join(f"{split} {figures_of(entry, split)}" for split in ("train", "validation"))
        self._console.print(
            f"epoch {entry['epoch']:>3}/{self._epochs}  step {entry['step']:>6}  {splits}"
            f"  {entry['images_per_second']:.0f} images/s  {entry['seconds']:.1f} s",
            markup=False,
        )

    def settle(self, config: ConfigDict) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoard:
    """Event files in DIR/tensorboard, if tensorboardX is installed."""

    def __init__(self, workdir: Path, config: ConfigDict):
        self._workdir, self._board = workdir, None

    def begin(self, history: Sequence[dict]) -> None:
        if not importlib.util.find_spec("tensorboardX"):
            return
        from tensorboardX import SummaryWriter

        after = history[-1]["step"] + 1 if history else 0
        with writing_to(self._workdir):
            self._board = SummaryWriter(str(self._workdir / "tensorboard"), purge_step=after)

    def epoch(self, entry: dict) -> None:
        if self._board is not None:
            for name, value in measured(entry).items():
                self._board.add_scalar(name, value, entry["step"])

    def settle(self, config: ConfigDict) -> None:
        pass

    def close(self) -> None:
        if self._board is not None:
            with contextlib.suppress(OSError):  # a full disk is reported when the checkpoint is written
                self._board.close()


class WeightsAndBiases:
    """A run in the project `log.wandb`; needs the extra `wandb`. WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, workdir: Path, config: ConfigDict):
        self._workdir, self._config = workdir, config
        self._run: Any = None

    def begin(self, history: Sequence[dict]) -> None:
        if not (project := self._config.log.wandb):
            return
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                f"--config.log.wandb={project}: Weights & Biases is not installed: {install('wandb')}"
            ) from error
        identity = self._workdir / "wandb-run-id"  # a continued run is the same run there
        with writing_to(self._workdir):
            if not identity.exists():
                write_text(identity, uuid.uuid4().hex)
            number = identity.read_text().strip()
        try:
            self._run = wandb.init(
                project=project,
                id=number,
                resume="allow",
                dir=str(self._workdir),
                name=self._workdir.name,
                config=self._config.to_dict(),
                settings=wandb.Settings(silent=True),
            )
        except Exception as error:  # wandb raises many types: no key, no network, no such project
            raise ConfigError(
                f"--config.log.wandb={project}: Weights & Biases does not start ({_first_sentence(error)}): log in "
                "with `wandb login`, or set WANDB_MODE=offline"
            ) from error

    def epoch(self, entry: dict) -> None:
        if self._run is not None:
            self._run.log(measured(entry) | {"epoch": entry["epoch"]}, step=entry["step"])

    def settle(self, config: ConfigDict) -> None:
        if self._run is not None:
            self._run.config.update(config.to_dict(), allow_val_change=True)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


WRITERS: tuple[Callable[[Path, ConfigDict], Writer], ...] = (MetricsFile, EpochLines, TensorBoard, WeightsAndBiases)


def _first_sentence(error: Exception) -> str:
    """What is wrong, without the advice that follows it and without the full stop."""
    return one_line(error).partition(". ")[0].rstrip(".")


def text_of(config: ConfigDict) -> str:
    """The text of config.json."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def lines_of(history: Sequence[dict]) -> str:
    """The text of metrics.jsonl; the candidates for an exact head are an event of their own, before the epoch's."""
    return "".join(json.dumps(event) + "\n" for entry in history for event in _events(entry))


def _events(entry: dict) -> Iterator[dict]:
    if CANDIDATES in entry:
        yield {"event": CANDIDATES, **entry[CANDIDATES]}
    yield {name: value for name, value in entry.items() if name != CANDIDATES}


def figures_of(entry: dict[str, Any], split: str) -> str:
    """`loss 0.6931 accuracy 0.5000 …` of one split; "none" if it has no records."""
    found = {name.partition("/")[2]: value for name, value in measured(entry).items() if name.startswith(f"{split}/")}
    return in_words(found) or "none"


def in_words(measurements: Mapping[str, float], *, between: str = " ") -> str:
    """`loss 0.6931 top 5 accuracy 0.5000`, from values by name."""
    return between.join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in measurements.items())


def measured(entry: dict[str, Any]) -> dict[str, float]:
    """The measurements in an entry: its values of type float. Those of an empty split are None and left out."""
    return {name: value for name, value in entry.items() if isinstance(value, float)}
