"""Text from outside is shown and never run: every target of the package, with names that break programs."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hostile_names import HOSTILE_NAMES
from small_export import classifier_of

from jaxcat.config import default, flatten
from jaxcat.configs import execute
from jaxcat.data.records import Split
from jaxcat.escaping import for_cell, for_json_in_page, for_python, for_shell, from_cell
from jaxcat.export.web.page import for_html
from jaxcat.inference.evaluation import write_predictions
from jaxcat.predict import _rows
from jaxcat.report.contents import SECTIONS
from jaxcat.report.making import Request, measured
from jaxcat.report.page import text_of
from jaxcat.study.advice import command, config_file
from jaxcat.study.files import _table
from jaxcat.training.describe import next_command
from jaxcat.wording import is_printable, printable

NAMES = (
    *HOSTILE_NAMES,
    "<img src=x onerror=alert(2)>",
    "{{ 7 * 7 }} {% raw %}",
    "' onmouseover='alert(3)",
    "]]> <!-- --> &lt;b&gt;",
    "\u2028line\u2029separators\x00\x1b[31m",
    "$\\frac{1}{2}$ and $ alone \\",
    "x" * 300,
    "-rf",
    "\udcff undecodable",
    "@SUM(A1)\t＝2",
)
ids = [ascii(name)[:20] for name in NAMES]
each_name = pytest.mark.parametrize("name", NAMES, ids=ids)


# one text for one target ---------------------------------------------------------------------------------------------


@each_name
def test_json_in_a_page(name):
    text = for_json_in_page({name: [name, 1.5, None]})
    assert json.loads(text) == {name: [name, 1.5, None]}
    assert not re.search("[<>&\u2028\u2029]", text)


def test_json_in_a_page_has_no_number_that_json_lacks():
    with pytest.raises(ValueError, match="JSON"):
        for_json_in_page(float("nan"))


@each_name
def test_a_cell_is_no_formula_and_comes_back(name):
    assert not re.match("[=+\\-@\t\r\n＝＋－＠]", for_cell(name))
    assert from_cell(for_cell(name)) == name


@each_name
def test_a_shell_reads_the_word(name):
    word = name.replace("\0", "")  # no command can have it
    line = for_shell("printf", "%s|", word, "next")
    assert line.isprintable()
    for shell in filter(shutil.which, ("bash", "zsh")):
        done = subprocess.run([shell, "-c", line.encode("utf-8", "surrogateescape")], capture_output=True, check=True)
        assert done.stdout == os.fsencode(f"{word}|next|")


@each_name
def test_python_reads_the_value(name):
    assert ast.literal_eval(for_python(name)) == name


@each_name
def test_html_of_the_exported_page(name):
    assert Parsed(f"<p>{for_html(name)}</p>").tags == ["p"]


# all targets of the package ------------------------------------------------------------------------------------------


class Parsed(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.texts.append((self.tags[-1] if self.tags else "", data))


@pytest.fixture(scope="module")
def context():
    """A classifier of classes with these names, on images with these names."""
    count = 2 * len(NAMES)
    images = np.random.default_rng(0).integers(0, 256, (count, 60, 80, 3), np.uint8)
    files = tuple(f"{i}{NAMES[i % len(NAMES)]}" for i in range(count))
    labels = np.arange(count, dtype=np.int32) % len(NAMES)
    split = Split("validation", files, labels, lambda i: images[i])
    return measured(
        classifier_of(classes=NAMES, data__source="digits"), split, Request(Path("a run; $(touch run)\u202e\n"), top=3)
    )


@pytest.fixture(scope="module")
def page(context):
    return text_of(context, [each for each in (section_of(context) for section_of in SECTIONS) if each])


def test_the_report(page, context):
    found = Parsed(page)
    scripts = re.findall(r"<script(?: type=\"application/json\" id=\"([\w-]+)\")?>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == found.tags.count("script")
    islands = {name: json.loads(text) for name, text in scripts if name}
    assert islands["classes"] == [printable(name) for name in NAMES]
    assert [record[0] for record in islands["records"].values()] == [printable(file) for file in context.split.files]
    assert not [name for name, _ in found.attributes if name.startswith("on") or name == "style"]
    assert all(not value or value.startswith("data:") for name, value in found.attributes if name in ("src", "srcset"))
    assert all(value.startswith(("#", "data:,")) for name, value in found.attributes if name == "href")
    shown = {data for tag, data in found.texts if tag in ("bdi", "span", "p")}
    for name in NAMES:
        assert printable(name) in shown
    assert is_printable(page.replace("\n", ""))


def test_tables_of_evaluate_study_and_predict(tmp_path, capsys):
    table, rows = tmp_path / "x.csv", np.eye(len(NAMES))
    split = Split("x", NAMES, np.arange(len(NAMES)), lambda i: b"")
    write_predictions(table, split, rows, classes=NAMES)
    found = read(table)
    assert [from_cell(cell) for cell in found[0][3:]] == list(NAMES)
    assert [[from_cell(cell) for cell in row[:3]] for row in found[1:]] == [[name] * 3 for name in NAMES]

    _table(table, [[name, 1.0] for name in NAMES])
    assert [from_cell(row[0]) for row in read(table)] == list(NAMES)

    row_of = _rows("csv", [name.replace("\udcff", "") for name in NAMES], top=1, wide=False)
    for name, row in zip(NAMES, rows, strict=True):
        row_of(Path(name.replace("\0", "").replace("\udcff", "")), row)
    lines = list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))[1:]
    assert [from_cell(line[1]) for line in lines] == [name.replace("\udcff", "") for name in NAMES]
    assert not [cell for line in lines for cell in line if re.match("[=+\\-@\t\r\n＝＋－＠]", cell)]


def read(table: Path) -> list[list[str]]:
    with open(table, newline="", encoding="utf-8", errors="surrogateescape") as file:
        found = list(csv.reader(file))
    assert not [cell for row in found for cell in row if re.match("[=+\\-@\t\r\n＝＋－＠]", cell)]
    return found


@each_name
def test_commands(name):
    folder = Path("runs") / name.replace("\0", "")
    for line in (command(folder), next_command(folder, [])):
        assert line.isprintable()
    words = subprocess.run(
        ["bash", "-c", f"for word in {command(folder)}; do printf '%s\\0' \"$word\"; done"], capture_output=True
    )
    assert os.fsencode(folder / "run") in words.stdout.split(b"\0")


@each_name
def test_a_config_file_of_a_study(name, tmp_path):
    config = default()
    config.data.dir = config.data.classes = name
    (tmp_path / "recommended.py").write_text(config_file(config, f"because of {name}"), encoding="utf-8")
    assert flatten(execute(str(tmp_path / "recommended.py"))) == flatten(config)
