"""Reports: one page that shows what a classifier learned, where it fails and why.

    path = jaxcat.report.report("runs/mine")         # runs/mine/report/index.html

`making` a report from flags or arguments · `context` what the sections are made from · `sections` one module each ·
`contents` their order · `pictures` images as they stand in the page · `plots` · `page` HTML, its policy and the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxcat.system.console import Console


def report(
    workdir: str | os.PathLike[str] | None,
    *,
    split: str = "",
    data: str | os.PathLike[str] | None = None,
    moved: str | os.PathLike[str] | None = None,
    weights: str = "",
    top: int = 24,
    compare: Sequence[str | os.PathLike[str]] = (),
    output: str | os.PathLike[str] | None = None,
    step: str | int = "best",
    engine: str = "auto",
    calibrated: bool = False,
    calibrate: bool = False,
    block: str = "",
    console: Console | None = None,
) -> Path:
    """Makes a report, as `python -m jaxcat.report` does.

    Args:
        workdir: of a run; None with `weights`.
        split: "train", "validation" or "test"; "": test if the run has one, else validation.
        data: measure on all of this folder, archive or table, not on the run's own data.
        moved: the run's own data are now here.
        weights: a name of published weights, or a file with all layers; needs `data` and `output`.
        top: images in each list of the gallery.
        compare: workdirs of other runs, which are measured on the same images.
        output: the folder of the report; None: `report` in the workdir.
        step: "best", "latest" or a step number.
        engine: what computes; see `jaxcat.load`.
        calibrated: whether the temperature in the run's calibration.json is applied.
        calibrate: whether that temperature is fitted and the file written.
        block: whose heat maps are shown, such as "mixed7"; "": the last one that the head reads.
        console: where progress is shown.

    Returns:
        The path of the page.

    Raises:
        JaxcatError: the run, data, weights or output cannot be used; the error says what to do.
    """
    from jaxcat.report.making import Request, make

    given = Request(
        workdir=None if workdir is None else Path(workdir),
        weights=weights,
        split=split,
        data=None if data is None else Path(data),
        moved=None if moved is None else Path(moved),
        top=top,
        compare=tuple(map(Path, compare)),
        output=None if output is None else Path(output),
        step=step,
        engine=engine,
        calibrated=calibrated,
        calibrate=calibrate,
        block=block,
    )
    return make(given, console=console)
