"""What a run prints about itself before it compiles, and the command to run after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.table import Table
from rich.text import Text

from jaxcat.bottlenecks.engines.litert import required_interpreter
from jaxcat.bottlenecks.engines.names import XLA
from jaxcat.config import flatten
from jaxcat.data.augmentation.table import views_of
from jaxcat.data.records import printed_order
from jaxcat.escaping import for_shell
from jaxcat.models.completion import chooses_blocks
from jaxcat.models.network import Network, Tree
from jaxcat.runs.meta import is_validated
from jaxcat.settings import SETTINGS
from jaxcat.system.console import Console
from jaxcat.system.devices import padded_batch_size
from jaxcat.training.optim import is_exact
from jaxcat.training.stages import title
from jaxcat.training.start import Start
from jaxcat.wording import counted, first_to_last


def next_command(workdir: Path, history: Sequence[dict]) -> str:
    """What to do after training, with the commands for it; a run without validation can only be measured elsewhere."""
    where = for_shell("--workdir", str(workdir))
    evaluate, report = f"python -m jaxcat.evaluate {where}", f"python -m jaxcat.report {where}"
    if history and not is_validated(history[-1]):
        elsewhere = "--data DIR"
        return (
            f"to evaluate it on other images, in DIR/CLASS/…: {evaluate} {elsewhere}; as a page: {report} {elsewhere}"
        )
    return f"to evaluate it: {evaluate}; to see where it fails and why, on one page: {report}"


NOTHING_HELD_OUT = "nothing is held out (--config.data.validation_fraction=0)"


def length_of(config: ConfigDict, steps_per_epoch: int, *, step: int) -> str:
    """One line: the length of the run and its current step."""
    return f"length   {counted(config.epochs, 'epoch')} of {counted(steps_per_epoch, 'step')}, now at step {step}"


def describe_run(
    console: Console, config: ConfigDict, run: Start, *, source: str, mesh: Mesh, validated: bool = True
) -> None:
    """Prints a table of weights, data, and what is trained and frozen.

    Args:
        source: the text of `Source.describe`.
        validated: whether there are validation records.
    """
    meta, data = run.meta, config.data
    provenance, classes = meta.provenance, meta.classes
    names = [classes[label] for label in printed_order(classes)]
    border = "counts" if meta.conventions.pool_counts_padding else "leaves out"
    weights = [str(provenance[key]) for key in ("source", "workdir") if provenance.get(key)]
    if provenance["source"] == "run":
        head = "with a new head" if provenance["head"] == "new" else "with its head"
        weights += [f"step {provenance['step']}", "" if is_exact(config) else head]
    if "sha256" in provenance:
        weights.append(f"sha256 {provenance['sha256'][:16]}…")
    padded = padded_batch_size(config.batch_size, mesh)
    padding = f", {counted(padded - config.batch_size, 'row')} of padding" if padded > config.batch_size else ""
    statistics = ", BatchNorm with stored statistics" if any(run.frozen["stats"].values()) else ""
    grey = f", 16-bit images as {data.grey_bits} bits" if data.grey_bits != 16 else ""
    fold = f", validation is fold {data.fold}" if data.fold else ""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in (
        *((("stage", title(meta.asked, meta.stage)),) if meta.stage else ()),
        ("weights", "  ".join(weights)),
        ("data", f"{data.source} {data.table or data.dir or data.name}  {source}{fold}"),
        ("classes", f"{len(classes)}: {', '.join(names[:10])}{' …' if len(names) > 10 else ''}"),
        ("pixels", f"{data.image_size}×{data.image_size}, {data.resize}, {_views(config)}{grey}"),
        ("", f"{meta.conventions.preprocessing}, average pooling {border} the padding"),
        *(_solved(config, run.network) if is_exact(config) else _trained(config, run)),
        ("frozen", f"{_sizes(run.frozen['params'], run.network)}{statistics}"),
        ("devices", f"{mesh.size} × {mesh.devices.flat[0].device_kind}, {config.model.dtype}"),
        *_engine(config),
        *(() if is_exact(config) else (("batch", f"{config.batch_size}{padding}"),)),
    ):
        table.add_row(name, Text(fact))
    console.print(table)
    for warning in _warnings(config, run):
        console.print(f"warning: {warning}", markup=False)
    if not validated:
        console.print(f"{NOTHING_HELD_OUT}: validation is not measured, and best means the latest step", markup=False)


def _views(config: ConfigDict) -> str:
    """How the views of training images are made, in a few words."""
    views = views_of(config)
    erased = f", {views.erase:g} of them erased in part" if views.erase else ""
    return f"augment {views.name}{erased}{f', on the {views.on}' if views.changed else ''}"


def _engine(config: ConfigDict) -> Iterator[tuple[str, str]]:
    """What computes bottlenecks, if the run has any."""
    engine = config.bottleneck.engine
    if config.bottleneck.views and engine == XLA:
        yield "", "bottlenecks by xla"
    elif config.bottleneck.views:
        found = required_interpreter()
        yield "", f"bottlenecks by {engine}, {found.package} {found.version}"


# Settings of the train step that are named only if they change it.
RECIPE = (
    *("optim.label_smoothing", "optim.mix", "optim.layer_decay", "optim.average", "optim.accumulate"),
    "model.remat",
)


def _trained(config: ConfigDict, run: Start) -> Iterator[tuple[str, str]]:
    optim, values = config.optim, flatten(config)
    rate = "to be found" if optim.find_learning_rate and not run.resumed else f"{optim.learning_rate:g}"
    yield "trained", _sizes(run.trained["params"], run.network)
    yield "", f"{optim.name}, learning rate {rate}, {optim.schedule}"
    changed = [f"{name}={values[name]}" for name in RECIPE if values[name] != SETTINGS[name].before]
    if changed:
        yield "", ", ".join(changed)


def _solved(config: ConfigDict, network: Network) -> Iterator[tuple[str, str]]:
    """What an exact head is made of; `network` has all blocks among which the run chooses."""
    features, blocks = counted(network.features, "feature"), first_to_last(network.pooled)
    yield "solved", f"one linear layer on {features}, {config.model.pool} of {blocks}"
    choices = ["a range of blocks"] if chooses_blocks(config.model) else []
    choices += [] if config.optim.penalty else ["the penalty"]
    chosen = f"chosen by leave-one-out on train: {' and '.join(choices)}" if choices else "blocks and penalty as given"
    yield "", f"least squares; {chosen}"


def _warnings(config: ConfigDict, run: Start) -> Iterator[str]:
    if config.model.train_bn and config.batch_size < 16:
        yield f"--config.batch_size={config.batch_size} gives noisy statistics with --config.model.train_bn=True"
    if config.bottleneck.views == 1 and views_of(config).changed:
        name = "augment" if config.data.augment != "none" else "erase"
        yield (
            f"--config.data.{name}={config.data[name]} with --config.bottleneck.views=1 shows the same view of "
            "an image in every epoch: set more views, or --config.bottleneck.views=0 for a new view in every epoch"
        )
    published = run.meta.provenance.get("evaluation") or {}
    if published.get("resize", config.data.resize) != config.data.resize:
        yield (
            f"the publisher of these weights evaluated them with --config.data.resize={published['resize']}, this run "
            f"has {config.data.resize}"
        )
    if run.meta.provenance["source"] == "scratch" and jax.tree.leaves(run.frozen):
        yield "the frozen blocks were never trained: --config.model.weights=none without --config.init_from"


def _sizes(tree: Tree, network: Network) -> str:
    leaves = jax.tree.leaves(tree)
    stages = [stage for stage in network.stages if jax.tree.leaves(tree.get(stage, {}))]
    names = first_to_last(stages) if stages else "nothing"
    return f"{names}: {counted(len(leaves), 'tensor')}, {counted(sum(leaf.size for leaf in leaves), 'parameter')}"
