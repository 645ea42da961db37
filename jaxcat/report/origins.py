"""What a run was made of, in words: data, weights, network, recipe, versions and the command that makes it again."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from ml_collections import ConfigDict

from jaxcat import configs
from jaxcat.config import flatten
from jaxcat.data.records import printed_order
from jaxcat.errors import JaxcatError
from jaxcat.escaping import for_shell
from jaxcat.inference.provenance import first_of, without_folders
from jaxcat.models.backbone import pooled_blocks
from jaxcat.models.completion import complete
from jaxcat.report.context import Context
from jaxcat.report.numbers import short
from jaxcat.runs.meta import Meta
from jaxcat.training.optim import is_exact
from jaxcat.training.stages import entries_of, title
from jaxcat.training.writers import CANDIDATES
from jaxcat.wording import counted, first_few, first_to_last

NAMED = 12  # classes
SCRATCH = "random numbers"
POOLED = {"avg": "averages", "avg_std": "averages and standard deviations", "max": "maxima", "flatten": "all values"}
# Settings that name files, of which the folders of this machine are not shown.
PATHS = (
    "data.dir",
    "data.table",
    "data.train_dir",
    "data.validation_dir",
    "data.test_dir",
    "data.corrections",
    "model.weights",
    "init_from",
)
# Settings that do not change what is trained, or that a run finds in its data.
LEFT_OUT = ("data.grey_bits", "resume", "log.wandb", "data.cache_gb", "data.download", "checkpoint.keep")


def about(context: Context) -> list[tuple[str, str]]:
    """Rows of what and value."""
    return [(what, value) for what, value in _rows(context) if value]


def _rows(context: Context) -> Iterator[tuple[str, str]]:
    meta, config = context.classifier.meta, context.classifier.config
    names = [short(context.classes[label]) for label in printed_order(meta.classes)]
    yield "Classes", f"{len(names):,}: {first_few(names, NAMED)}"
    if context.workdir is not None:
        yield "Data", _data(context)
    yield from _weights(meta)
    model, data = config.model, config.data
    blocks = first_to_last(pooled_blocks(model))
    cells = f" in {model.pool_grid}×{model.pool_grid} cells" if model.pool_grid > 1 else ""
    width = "" if model.width == 1 else f" of {model.width:g} times the usual width"
    yield "Network", f"{model.backbone}{width}; the head sees {POOLED[model.pool]}{cells} of {blocks}"
    yield "Pixels", f"{data.image_size}×{data.image_size}, {data.resize}; {meta.conventions.preprocessing}"
    if context.workdir is not None:
        yield "Head", _head(meta)
    summary = context.summary
    interpreter = summary.get("interpreter") or {}
    by = f", {interpreter['name']} {interpreter['version']}" if interpreter else ""
    yield "Answers computed by", f"{summary['engine']}{by}"
    yield "Versions", ", ".join(f"{name} {version}" for name, version in meta.versions.items())


def _data(context: Context) -> str:
    data, meta = context.classifier.config.data, context.classifier.meta
    place = shown_path(data.table or data.dir) if data.table or data.dir else data.name
    counts = {name: len(each.files) for name, each in (context.listed or {}).items()}
    if not counts and meta.records:
        counts = {"train": meta.records.images}
    sizes = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"{' '.join(filter(None, (data.source, place)))}: {sizes} images" if sizes else f"{data.source} {place}"


def _weights(meta: Meta) -> Iterator[tuple[str, str]]:
    """Where the first numbers came from: a file, or another run and what that began with."""
    provenance = without_folders(meta.provenance)
    origins: list[str] = []
    entry: Any = provenance
    while isinstance(entry, Mapping):
        origins.append(_origin(entry))
        entry = entry.get("before")
    yield "Weights", ", which began with ".join(filter(None, origins))
    if origins != [SCRATCH] and (origins[-1] != SCRATCH or first_of(provenance, "licence")):
        yield "Licence of the weights", first_of(provenance, "licence") or "not known: their file does not say"
    yield "Attribution", first_of(provenance, "notice")


def _origin(entry: Mapping[str, Any]) -> str:
    """One origin in words."""
    source, digest = str(entry.get("source", "")), str(entry.get("sha256", ""))
    if source == "scratch":
        return SCRATCH
    if source == "run":
        return f"the run {entry.get('workdir', '')}, step {entry.get('step', '')}"
    known = dict.fromkeys((source, str(entry.get("file", "")), f"sha256 {digest[:16]}…" if digest else ""))
    return ", ".join(filter(None, known))


def _head(meta: Meta) -> str:
    config = meta.config
    model, optim = config.model, config.optim
    stage = f"; stage {title(meta.asked, meta.stage)}" if meta.stage else ""
    if is_exact(config):
        chosen = meta.history[-1].get(CANDIDATES, {}) if meta.history else {}
        several = len(chosen.get("ranges", ())) > 1
        how = ", blocks chosen by leave-one-out on train" if several else ""
        return f"one linear layer, solved by least squares with penalty {optim.penalty:.4g}{how}{stage}"
    hidden = f"{counted(model.hidden, 'hidden unit')}, " if model.hidden else ""
    from_block = "" if model.train_from == "head" else f", with the blocks from {model.train_from} on"
    changes = {
        "images augmented": config.data.augment if config.data.augment != "none" else "",
        "erased": f"{config.data.erase:g}" if config.data.erase else "",
        "mixed": optim.mix if optim.mix != "none" else "",
        "averaged": f"{optim.average:g}" if optim.average else "",
    }
    with_changes = "".join(f", {what} ({how})" for what, how in changes.items() if how)
    epochs = counted(len(entries_of(meta.history, meta.stage)), "epoch")
    trained = f"trained by {optim.name} at learning rate {optim.learning_rate:g} for {epochs}"
    return f"{hidden}{trained}{from_block}{with_changes}{stage}"


# the command ---------------------------------------------------------------------------------------------------------


def train_command(meta: Meta, workdir: str) -> list[str]:
    """The train command that makes such a run again: the nearest shipped recipe and what differs, quoted for a shell.

    It comes in lines; in a shell, each but the last ends with a backslash.

    Args:
        workdir: as it is to stand in the command.
    """
    specification, changed = min(
        ((name, _difference(recipe, meta.asked)) for name, recipe in _recipes(meta.asked)),
        key=lambda found: len(found[1]),
    )
    lines = [for_shell("python", "-m", "jaxcat.train", "--config", specification, "--workdir", workdir)]
    for name, value in changed.items():
        shown = shown_path(value) if name in PATHS and isinstance(value, str) and value else value
        lines.append(for_shell(f"--config.{name}={shown}"))
    return lines


def _recipes(config: ConfigDict) -> Iterator[tuple[str, ConfigDict]]:
    """The shipped recipes with their variants, completed for the backbone of this config; that of its source first."""
    names = sorted(configs.shipped(), key=lambda name: (name != config.data.source, name != "folder", name))
    for name in names:
        for variant in importlib.import_module(f"jaxcat.configs.{name}").VARIANTS:
            specification = name if variant == "default" else f"{name}:{variant}"
            try:
                recipe = configs.execute(specification)
                own, recipe.model.backbone = recipe.model.backbone, config.model.backbone
                complete(recipe)
                recipe.model.backbone = own  # a command must name another one
            except (JaxcatError, KeyError):  # a recipe for another backbone
                continue
            yield specification, recipe


def _difference(recipe: ConfigDict, config: ConfigDict) -> dict[str, Any]:
    before, now = flatten(recipe), flatten(config)
    return {name: value for name, value in now.items() if name not in LEFT_OUT and before.get(name) != value}


def shown_path(path: str) -> str:
    """A path as a page may show it, without the folders of this machine: from the working directory, or its name."""
    if not os.path.isabs(path):
        return path
    try:
        return Path(path).relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return PurePath(path).name
