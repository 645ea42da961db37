"""What a study prints: the table of ranges, and a sentence on each question."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from jaxcat.objectives.near_duplicates import LEAST_IMAGES
from jaxcat.study.advice import CONFIG_FILE, command
from jaxcat.study.curve import in_words
from jaxcat.study.images import Alike, Image
from jaxcat.study.ranking import Row
from jaxcat.study.results import Results
from jaxcat.system.console import Console
from jaxcat.wording import counted, first_to_last, printable

SHOWN = 12  # rows of the table
FEWEST = 3  # rows solved on all images, from which on only these are shown
EXAMPLES = 5  # images of each kind


def show(console: Console, results: Results, workdir: Path) -> None:
    """Prints the summary."""
    tables = Console(quiet=console.quiet, tables=True)
    tables.print(_table(results))
    for line in lines(results, workdir):
        console.print(line)


def _table(results: Results) -> Table:
    solved = [row for row in results.rows if row.solved]
    rows = solved if len(solved) >= FEWEST else results.rows[:SHOWN]
    sized, several = len({row.size for row in results.rows}) > 1, len({row.records for row in rows}) > 1
    table = Table(box=None, pad_edge=False)
    names = ("blocks", "pool", *(["px"] if sized else []), "ms", "error", "accuracy, 95 % interval")
    for column in (*names, *(["images"] if several else []), ""):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(
            first_to_last(row.candidate.blocks),
            row.candidate.pool,
            *([str(row.size)] if sized else []),
            "" if row.milliseconds is None else f"{row.milliseconds:.0f}",
            f"{row.squared_error:.4f}",
            f"{row.accuracy:.4f} ({row.low:.3f} to {row.high:.3f})",
            *([f"{row.records:,}"] if several else []),
            "chosen" if row is results.winner else "",
        )
    return table


def lines(results: Results, workdir: Path) -> Iterator[str]:
    """The sentences of a study, one for each line."""
    judged = len([row for row in results.rows if not row.solved])
    count = len(results.collected.splits["train"])
    yield (
        f"{judged} ranges × poolings at their best penalty, by leave-one-out; ms: milliseconds an image. All are in "
        "ranges.csv"
    )
    if results.ranked_on < count:
        again = len(results.rows) - judged
        which = f"the best {again} were" if again > 1 else "the best was"
        yield (
            f"They were ranked on {results.ranked_on:,} of the {count:,} train images, drawn by the seed; {which} then "
            "solved on all."
        )
    yield from results.notes
    yield from _cost(results)
    yield f"How sure: accuracy {results.accuracy.describe()}; left out one by one, the choice among ranges included"
    if results.validation is not None:
        yield f"          validation {results.validation.describe()}; nothing was chosen by them"
    if not results.learned:
        yield (
            f"No head is better than the answer that is right most often ({results.chance:.3f}): the features of these "
            "blocks do not tell the classes apart."
        )
    yield in_words(results.curve)
    yield from _labels(results)
    yield from _duplicates(results)
    if results.hardest:
        hard = ", ".join(
            f"{printable(each.first)} and {printable(each.second)} ({100 * each.share:.1f} %)"
            for each in results.hardest[:EXAMPLES]
        )
        yield f"Classes taken for each other, share of their images: {hard}"
    yield f"What to do: the config of the winner is {workdir / CONFIG_FILE}; train it with"
    yield f"  {command(workdir)}"


def _cost(results: Results) -> Iterator[str]:
    """How much cheaper ranges of the front lose."""
    winner, cheaper = results.winner, []
    of_winner = next((row for row in results.rows if not row.solved and _same(row, winner)), winner)
    for row in results.front:
        if row.milliseconds and of_winner.milliseconds and row.milliseconds < 0.9 * of_winner.milliseconds:
            cheaper.append(row)
    for row in cheaper[-2:]:
        share = (row.milliseconds or 0.0) / (of_winner.milliseconds or 1.0)
        lost = 100 * (of_winner.accuracy - row.accuracy)
        errors = f"{row.squared_error:.3f}, not {of_winner.squared_error:.3f}"
        words = f"loses {lost:.1f} points" if lost > 0 else f"loses no accuracy, but its squared error is {errors}"
        which = row.describe(sized=row.size != winner.size)
        yield f"Cheaper: {which} takes {100 * share:.0f} % of the time and {words}"


def _same(one: Row, other: Row) -> bool:
    return one.size == other.size and one.candidate == other.candidate


def _labels(results: Results) -> Iterator[str]:
    found, split, classes = results.suspects, results.collected.splits["train"], results.collected.classes
    listed = [int(i) for i in found.order if found.confident[i]]
    if not listed:
        yield "Labels: none looks wrong with confidence; labels.csv ranks all"
        return
    yield f"Labels: {counted(len(listed), 'label')} of {len(split):,} may be wrong; labels.csv has them first, such as"
    for i in listed[:EXAMPLES]:
        name, label = printable(split.files[i]), printable(classes[split.labels[i]])
        yield f"  {name}: labelled {label}, looks like {printable(classes[found.suggested[i]])}"


def _duplicates(results: Results) -> Iterator[str]:
    copies = results.copies
    if sum(map(len, results.collected.splits.values())) < LEAST_IMAGES:
        yield f"Near duplicates: not looked for, since that needs at least {LEAST_IMAGES} images"
        return
    new = [pair for pair in copies.pairs if pair.labels or not pair.known]  # two labels are wrong in a group too
    across, labels = sum(pair.across for pair in new), sum(pair.labels for pair in new)
    yield (
        f"Near duplicates: {counted(len(new), 'pair')} ({across} across splits, {labels} with two labels) besides "
        "those of one label that are left out together. Images that only share a background may be among them; a "
        "cosine near 1 is a copy. duplicates.csv has all"
    )
    for pair in new[:EXAMPLES]:
        yield f"  {_words(results, pair)}"


def _words(results: Results, pair: Alike) -> str:
    def named(image: Image) -> str:
        split = results.collected.splits[image.split]
        label = results.collected.classes[split.labels[image.number]]
        return f"{printable(split.files[image.number])} ({image.split}, {printable(label)})"

    return f"{named(pair.first)} ~ {named(pair.second)}, cosine {pair.cosine:.2f}"
