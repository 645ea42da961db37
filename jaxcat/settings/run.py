"""Settings of a run as a whole: seed, length, batch, where it begins."""

from __future__ import annotations

from jaxcat.setting import Setting

SETTINGS: dict[str, Setting] = {
    "seed": Setting(
        0, before=0, meaning="random seed: subsets, initial head, order, augmentation, dropout", high=2**31 - 1
    ),
    "epochs": Setting(20, before=20, meaning="passes over all train records", low=1, high=10**6, may_change=True),
    "batch_size": Setting(
        20, before=20, meaning="size of a batch, over all devices and hosts", unit="images", low=1, high=2**20
    ),
    "init_from": Setting(
        "", before="", meaning="workdir of a run to start from: its backbone, and its head if the classes are the same"
    ),
    "resume": Setting(
        "auto",
        before="auto",
        meaning="what to do if the workdir already holds a run",
        choices={"auto": "continue it", "force": "continue it even if settings differ", "never": "refuse"},
        may_change=True,
    ),
}
