"""The table of settings: each one's default, value in older runs, meaning, unit, bounds, and whether it may change.

A setting is written `--config.NAME=VALUE` on the command line, for example `--config.optim.learning_rate=1e-3`. Values
that name an implementation (optimizers, augmentations, backbones and their blocks …) are checked in flags.py, against
the table of these implementations.
"""

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
    # data -------------------------------------------------------------------------------------------------------------
    "data.source": Setting("folder", before="folder", meaning="where images and labels come from"),
    "data.dir": Setting(
        "",
        before="",
        meaning="folder: DIR/SPLIT/CLASS/… or DIR/CLASS/…; table: where relative paths begin; tfds: its data directory",
        may_change=True,
    ),
    "data.table": Setting(
        "", before="", meaning="table: a CSV, TSV or Parquet file with a row for each image", may_change=True
    ),
    "data.path_column": Setting(
        "", before="", meaning="table: column of paths, relative to data.dir or the table; empty: by its usual names"
    ),
    "data.label_column": Setting("", before="", meaning="table: column of class names; empty: by its usual names"),
    "data.split_column": Setting(
        "", before="", meaning="table: column of train, validation and test; empty: by its usual names; none: no column"
    ),
    "data.group_column": Setting(
        "",
        before="",
        meaning="table: column of groups that no division breaks up; empty: by its usual names; none: no column",
    ),
    "data.corrections": Setting(
        "",
        before="",
        meaning="table of images with their right labels, added to train; paths are relative to it; empty: none",
    ),
    "data.name": Setting("", before="", meaning="tfds: name of the data set"),
    "data.label_pattern": Setting(
        "",
        before="",
        meaning="folder: regular expression whose one group finds the class in a file's name, as ^(cat|dog) does in "
        "cat.0.jpg; in its path below data.dir if the expression has a slash; empty: the class is a folder's name",
    ),
    "data.group_pattern": Setting(
        "",
        before="",
        meaning="folder, table: regular expression whose one group finds, in the path below data.dir, the group of an "
        "image that no division breaks up; empty: none",
    ),
    "data.train": Setting("train", before="train", meaning='tfds: split expression, for example "train[:80%]"'),
    "data.validation": Setting(
        "", before="", meaning="tfds: split expression; empty: hold out data.validation_fraction of train"
    ),
    "data.test": Setting("", before="", meaning="tfds: split expression; empty: no test split"),
    "data.validation_fraction": Setting(
        0.2,
        before=0.2,
        meaning="share of train to hold out, stratified, if there is no validation split; 0: train on everything",
        high=0.9,
    ),
    "data.fold": Setting(
        "", before="", meaning="K/N: the K-th of N parts of train, from 1, is validation; the same seed for all N runs"
    ),
    "data.fold_over": Setting(
        "train",
        before="train",
        meaning="with data.fold, what is divided",
        choices={"train": "train only", "train+validation": "both, if the data have a validation split"},
    ),
    "data.train_dir": Setting(
        "",
        before="",
        meaning="folder: its split train, in data.dir or absolute; only named splits are then used; empty: found",
    ),
    "data.validation_dir": Setting(
        "", before="", meaning="the same for validation; empty: found, if train_dir is empty too"
    ),
    "data.test_dir": Setting("", before="", meaning="the same for test; empty: found, if train_dir is empty too"),
    "data.classes": Setting(
        "", before="", meaning='classes to keep, separated by commas, as in CSV: cat,"dog, wild"; empty: all'
    ),
    "data.min_per_class": Setting(
        0, before=0, meaning="folder, table, tfds: leave out classes with fewer in train; 0: none", unit="images"
    ),
    "data.image_size": Setting(
        299,
        before=299,
        meaning="side of the square image that the network sees; 0: the backbone's usual size",
        unit="pixels",
        high=4096,
    ),
    "data.resize": Setting("squash", before="squash", meaning="how images are made square"),
    "data.train_size": Setting(
        0, before=0, meaning="images of train to keep, equally many of each class; 0: all", unit="images"
    ),
    "data.validation_size": Setting(0, before=0, meaning="the same for the validation split; 0: all", unit="images"),
    "data.grey_bits": Setting(
        0,
        before=16,
        meaning="bits that the values of 16-bit images use: level = min(value >> (bits - 8), 255); 0: the smallest of"
        " 8, 10, 12, 14 and 16 that covers train",
        unit="bits",
        high=16,
    ),
    "data.max_pixels": Setting(
        178_956_970,
        before=178_956_970,
        meaning="of the largest image that is read; one pixel takes 7 to 14 bytes of memory",
        unit="pixels",
        low=1,
        high=2**33,
    ),
    "data.skip_bad": Setting(
        False, before=False, meaning="True: leave unreadable images out and count them; False: list them and refuse"
    ),
    "data.download": Setting(
        False, before=False, meaning="tfds: True allows it to download and prepare the data set", may_change=True
    ),
    "data.cache_gb": Setting(
        4.0, before=4.0, meaning="memory for decoded images of splits that fit; 0: none", unit="GiB", may_change=True
    ),
    "data.augment": Setting("none", before="none", meaning="random changes of each training image"),
    "data.augment_on": Setting(
        "auto",
        before="host",
        meaning="what computes them; pixels differ by at most one grey level",
        choices={
            "auto": "device on CPU and GPU, host on TPU and where LiteRT makes bottlenecks",
            "host": "TensorFlow, on the processor, beside the steps",
            "device": "JAX, on the devices, as part of the step",
        },
    ),
    "data.erase": Setting(
        0.0,
        before=0.0,
        meaning="share of training images of which a random rectangle is erased, 0.02 to 0.4 of the area; 0: none",
        high=1,
    ),
    # model ------------------------------------------------------------------------------------------------------------
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
