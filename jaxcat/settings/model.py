"""Settings of the network: backbone, weights, the cut, what is trained, pooling, the head."""

from __future__ import annotations

from jaxcat.setting import Setting

SETTINGS: dict[str, Setting] = {
    "model.backbone": Setting("inception_v3", before="inception_v3", meaning="the pretrained network"),
    "model.weights": Setting(
        "", before="keras-imagenet", meaning="name of published weights, a file, or none; empty: the backbone's default"
    ),
    "model.preprocessing": Setting(
        "weights",
        before="weights",
        meaning="how pixels are scaled for the network",
        choices={"weights": "as in the training of the weights", "zero_one": "to [0, 1]"},
    ),
    "model.cut": Setting(
        "",
        before="mixed10",
        meaning="the last block used; fast: an early one, and a small size if data.image_size is 0; empty: the last of "
        "the backbone",
    ),
    "model.train_from": Setting(
        "head",
        before="head",
        meaning="the first trained stage: head, or a block up to the cut; the head may also see blocks before it",
    ),
    "model.train_bn": Setting(
        False, before=False, meaning="True: in trained blocks, BatchNorm uses the batch and updates its statistics"
    ),
    "model.bn_momentum": Setting(  # Keras's 0.99 is too slow for runs of a few hundred steps
        0.9, before=0.9, meaning="with train_bn, share of the old statistics that a step keeps", high=1
    ),
    "model.pool_from": Setting(
        "cut",
        before="cut",
        meaning="the head sees all blocks from this one to the cut; cut: the last block only; auto: all after the "
        "first or, if model.cut is empty, a range chosen by leave-one-out on train",
    ),
    "model.pool": Setting(
        "avg",
        before="avg",
        meaning="how the output of a block becomes features",
        choices={
            "avg": "average of each cell",
            "avg_std": "average and standard deviation of each cell",
            "max": "maximum of each cell",
            "flatten": "all values",
        },
    ),
    "model.pool_grid": Setting(
        1, before=1, meaning="cells a side of the grid that a block is pooled to; 1: one cell", low=1, high=64
    ),
    "model.hidden": Setting(0, before=0, meaning="width of a hidden layer with ReLU in the head; 0: none", high=2**16),
    "model.dropout": Setting(0.0, before=0.0, meaning="share of features dropped before the logits", high=0.99),
    "model.width": Setting(
        1.0, before=1.0, meaning="factor on all numbers of channels; published weights need 1.0", above=0, high=4
    ),
    "model.dtype": Setting(
        "float32",
        before="float32",
        meaning="type of the computation; parameters, statistics and logits are always float32",
        choices={"float32": "single precision", "bfloat16": "half the memory, fast on accelerators"},
    ),
    "model.remat": Setting(
        False,
        before=False,
        meaning="True: trained blocks keep only their outputs and compute the rest again for gradients, to save memory",
    ),
}
