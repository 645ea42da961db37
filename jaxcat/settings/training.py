"""Settings of training: stages, optimizer, learning rate, loss, mixing, when to stop."""

from __future__ import annotations

from jaxcat.setting import Setting

SETTINGS: dict[str, Setting] = {
    # train ------------------------------------------------------------------------------------------------------------
    "train.stages": Setting(
        "",
        before="",
        meaning="several trainings in one run, FROM:EPOCHS:LEARNING_RATE separated by commas, each from the same or an "
        "earlier stage of the network than the one before; as the first, head::exact solves the head; they replace "
        "model.train_from, epochs and optim.learning_rate; empty: one training, as these say",
    ),
    # optim ------------------------------------------------------------------------------------------------------------
    "optim.name": Setting("rmsprop", before="rmsprop", meaning="the optimizer"),
    "optim.penalty": Setting(
        0.0, before=0.0, meaning="exact: strength of the L2 penalty; 0: chosen by leave-one-out on train", high=1e12
    ),
    "optim.learning_rate": Setting(1e-4, before=1e-4, meaning="highest one, for the head", above=0, high=1e3),
    "optim.find_learning_rate": Setting(
        False,
        before=False,
        meaning="True: a sweep on part of train chooses the learning rate before the first step, and the run keeps it",
    ),
    "optim.schedule": Setting("constant", before="constant", meaning="course of the learning rate after the warm-up"),
    "optim.warmup_epochs": Setting(
        0.0, before=0.0, meaning="linear rise of the learning rate from 0; 0: no rise", unit="epochs", high=10**5
    ),
    "optim.backbone_scale": Setting(
        1.0, before=1.0, meaning="the backbone's learning rate, as a multiple of the head's", above=0, high=1e3
    ),
    "optim.layer_decay": Setting(
        1.0,
        before=1.0,
        meaning="factor on the learning rate of the last trained block, and once more for each block before it",
        above=0,
        high=1,
    ),
    "optim.weight_decay": Setting(0.0, before=0.0, meaning="decoupled weight decay, of kernels only; 0: none", high=1),
    "optim.clip_norm": Setting(
        0.0, before=0.0, meaning="largest norm of the gradient, for head and backbone separately; 0: no limit"
    ),
    "optim.class_weight": Setting(
        "none",
        before="none",
        meaning="how much a class counts in the training loss",
        choices={"none": "in proportion to its images", "balanced": "the same as any other class"},
    ),
    "optim.label_smoothing": Setting(
        0.0,
        before=0.0,
        meaning="share of a label that the training loss spreads over all classes; 0: none",
        high=0.5,
    ),
    "optim.mix": Setting("none", before="none", meaning="how rows of a batch are mixed, with their labels"),
    "optim.mix_alpha": Setting(
        0.2,
        before=0.2,
        meaning="with mix, both parameters of the beta distribution of the shares: 0.2 rarely mixes much, 1 does",
        above=0,
        high=100,
    ),
    "optim.accumulate": Setting(
        1,
        before=1,
        meaning="equal parts in which a batch goes through the trained stages, to save memory; 1: the whole at once",
        unit="parts",
        low=1,
        high=2**20,
    ),
    "optim.average": Setting(
        0.0,
        before=0.0,
        meaning="decay per step of a moving average of the trained parameters, which the run is validated and used "
        "with; 0: none",
        high=0.99999,
    ),
    # stop -------------------------------------------------------------------------------------------------------------
    "stop.accuracy": Setting(
        0.0, before=0.0, meaning="end the run at this accuracy; 0: never", high=1, may_change=True
    ),
    "stop.on": Setting(
        "validation",
        before="validation",
        meaning="split whose accuracy is compared with stop.accuracy",
        choices={"train": "mean over the steps of the epoch", "validation": "measured after the epoch"},
        may_change=True,
    ),
    "stop.patience": Setting(
        0, before=0, meaning="end the run after so many epochs without a better validation; 0: never", may_change=True
    ),
}
