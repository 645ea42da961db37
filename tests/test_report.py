"""Reports of a tiny run: the page comes out, and its figures are those of evaluate."""

from __future__ import annotations

import json

import pytest

from jaxcat.evaluate import main as evaluate
from jaxcat.report import report
from jaxcat.report.__main__ import main
from jaxcat.report.numbers import percent


@pytest.fixture(scope="module")
def page(finished):
    return report(finished)


def test_the_figures_are_those_of_evaluate(finished, page):
    assert page == finished / "report" / "index.html"
    assert evaluate(["--workdir", str(finished)]) == 0
    figures = json.loads((finished / "evaluation" / "validation.json").read_text())
    assert percent(figures["accuracy"], 2) in page.read_text()


def test_the_command(copy, capsys):
    assert main(["--workdir", str(copy)]) == 0
    assert capsys.readouterr().out == f"written: {copy / 'report' / 'index.html'}\n"
