"""Settings of what a run keeps: bottlenecks, checkpoints, reports."""

from __future__ import annotations

from jaxcat.setting import Setting

SETTINGS: dict[str, Setting] = {
    # bottleneck -------------------------------------------------------------------------------------------------------
    "bottleneck.views": Setting(
        0, before=0, meaning="views of each image to keep bottlenecks of; 0: frozen blocks run in each step", high=10**4
    ),
    "bottleneck.dtype": Setting(
        "float16",
        before="float16",
        meaning="type of the bottlenecks on disk",
        choices={"float16": "half the space", "float32": "as computed"},
    ),
    "bottleneck.engine": Setting("xla", before="xla", meaning="what computes bottlenecks of frozen blocks"),
    # checkpoint -------------------------------------------------------------------------------------------------------
    "checkpoint.every_steps": Setting(
        0, before=0, meaning="also save after so many steps; 0: after each epoch only", may_change=True
    ),
    "checkpoint.keep": Setting(
        1, before=1, meaning="best checkpoints to keep, besides the latest two", low=1, high=100, may_change=True
    ),
    # log --------------------------------------------------------------------------------------------------------------
    "log.wandb": Setting(
        "", before="", meaning="project in Weights & Biases to report to; empty: none", may_change=True
    ),
}
