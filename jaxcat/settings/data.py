"""Settings of the data: where images and labels come from, splits, sizes, decoding, augmentation."""

from __future__ import annotations

from jaxcat.setting import Setting

SETTINGS: dict[str, Setting] = {
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
        meaning="folder, table: regular expression whose parentheses match, in the path below data.dir, what an image "
        "belongs to, such as a patient: no division breaks up such a group; folders in class folders whose names it "
        "matches are neither classes nor splits; empty: no groups",
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
            "auto": "device on CPU and GPU, host on TPU and if LiteRT makes bottlenecks",
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
}
