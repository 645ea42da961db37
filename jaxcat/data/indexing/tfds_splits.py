"""A TensorFlow Datasets (TFDS) set as data. Its images stay encoded until jaxcat's own decoder decodes them."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import logging
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxcat.data.division import divide
from jaxcat.data.records import SPLITS, Data, Split, choose_classes, frequent_classes, keep_classes
from jaxcat.errors import ConfigError, DataError, one_line
from jaxcat.wording import counted

logger = logging.getLogger(__name__)

_RETRIES = 5  # with pauses of 0.4, 0.8, 1.6 … seconds


def open_tfds(config: Any) -> Data:
    """Indexes the splits that `data.train`, `data.validation` and `data.test` name.

    A set prepared as array_record is read by random access; one prepared as TFRecord is read once, in file order, and
    its encoded images are kept in memory. Without `data.validation`, a fraction of train is held out.

    Raises:
        ConfigError: TFDS does not know the name or a split expression, splits overlap, or a class is unknown.
        DataError: the set is not prepared (the message has the command for it), or has no images with class labels.
    """
    if not config.data.name or not config.data.train:
        raise ConfigError(
            "--config.data.source=tfds needs --config.data.name=NAME and --config.data.train=SPLIT, such as train[:80%]"
        )
    builder = _builder(config)
    if not builder.is_prepared():
        if not config.data.download:
            raise DataError(_not_prepared(config, builder))
        builder = _prepare(config)
    image, label, available = _features(builder, config)
    classes = choose_classes(available, config.data.classes)
    splits = {}
    for name in SPLITS:
        expression = getattr(config.data, name)
        if expression:
            split = _read(builder, name, expression, image, label)
            if len(split) and split.labels.min() < 0:
                raise DataError(f"--config.data.{name}={expression}: this split of {config.data.name} has no labels")
            if name == "train":
                counts = np.bincount(split.labels, minlength=len(available))
                classes = frequent_classes({known: int(counts[available.index(known)]) for known in classes}, config)
            splits[name] = keep_classes(split, available, classes)
            _check_every_class(splits[name], classes, expression)
    _check_disjoint(splits, config)
    return Data(classes, divide(splits, config, classes))


def _builder(config: Any, **options: str) -> Any:
    """The TFDS builder of `data.name`; without options, the file format is that of the existing data."""
    import tensorflow_datasets as tfds

    logging.getLogger("absl").addFilter(_not_about_preparation)
    try:
        namespace = tfds.core.naming.parse_builder_name_kwargs(config.data.name)[0].namespace
        if namespace:  # TFDS would look the set up on the network, whatever `data.download` says
            raise ValueError(
                f"sets of {namespace} are not supported; name one that TFDS itself defines, or one it has prepared"
            )
        return tfds.builder(config.data.name, data_dir=config.data.dir or None, **options)
    except Exception as error:  # unknown names, versions and configurations raise four kinds of exception
        near = difflib.get_close_matches(config.data.name, tfds.list_builders(with_community_datasets=False), n=3)
        hint = f" Nearest: {', '.join(near)}." if near else ""
        raise ConfigError(f"--config.data.name={config.data.name}: {one_line(error)}{hint}") from error


def _not_about_preparation(record: logging.LogRecord) -> bool:
    """False for TFDS's warning that a folder has no data set yet: `_not_prepared` explains it better."""
    return "has no dataset_info.json" not in record.getMessage()


def _not_prepared(config: Any, builder: Any) -> str:
    arguments = repr(config.data.name) + (f", data_dir={config.data.dir!r}" if config.data.dir else "")
    return (
        f"--config.data.name={config.data.name}: not prepared in {builder.data_dir}. jaxcat downloads nothing unless"
        " --config.data.download=True; on a machine with a network, prepare it with\n"
        f'  python -c "import tensorflow_datasets as tfds; tfds.builder({arguments},'
        " file_format='array_record').download_and_prepare()\"\n"
        "or put the images in folders and set --config.data.source=folder"
    )


def _prepare(config: Any) -> Any:
    """Downloads and prepares the set as array_record; returns its builder."""
    from requests.exceptions import ConnectionError as NoConnection

    builder = _builder(config, file_format="array_record")
    try:
        with _few_retries():
            builder.download_and_prepare()
    except Exception as error:  # network, checksum, disk and missing-package errors alike
        text = f"--config.data.download=True: cannot prepare {config.data.name}: "
        if isinstance(error, NoConnection) and error.request is not None:
            host = urllib.parse.urlsplit(str(error.request.url)).hostname
            text += f"{host} cannot be reached; without a network, prepare the set on another machine, copy it to "
            text += f"{builder.data_dir}, and leave data.download out: "
        reason = getattr(next(iter(error.args), None), "reason", None) or error  # of urllib3's "Max retries exceeded"
        raise DataError(f"{text}{one_line(reason)}") from error
    return builder


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """Lets TFDS try each download for about ten seconds in place of three minutes, without a warning for each try."""
    from tensorflow_datasets.core.download import downloader

    log, before = logging.getLogger("urllib3.connectionpool"), getattr(downloader, "MAX_RETRIES", _RETRIES)
    level = log.level
    log.setLevel(logging.ERROR)
    downloader.MAX_RETRIES = _RETRIES
    try:
        yield
    finally:
        log.setLevel(level)
        downloader.MAX_RETRIES = before


def _features(builder: Any, config: Any) -> tuple[str, str, tuple[str, ...]]:
    """The names of the image and label features, and the class names."""
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys or ("image", "label")
    features = dict(builder.info.features.items())
    kinds = [features.get(key) if isinstance(key, str) else None for key in keys]
    fits = (
        len(kinds) == 2 and isinstance(kinds[0], tfds.features.Image) and isinstance(kinds[1], tfds.features.ClassLabel)
    )
    if not fits:
        raise DataError(
            f"--config.data.name={config.data.name}: jaxcat needs an image and one class label per record;"
            f" this set has {', '.join(features)}"
        )
    image, label = keys
    return image, label, tuple(features[label].names)


def _read(builder: Any, name: str, expression: str, image: str, label: str) -> Split:
    """Reads one split: the labels of all records, and a function that gives an encoded image."""
    from tensorflow_datasets.core.file_adapters import FileFormat

    formats = {builder.info.file_format, *(builder.info.alternative_file_formats or ())}
    read = _random_access if formats & FileFormat.with_random_access() else _in_memory
    try:
        labels, encoded = read(builder, expression, image, label)
    except (ValueError, KeyError) as error:
        there = ", ".join(f"{split} ({info.num_examples})" for split, info in builder.info.splits.items())
        raise ConfigError(
            f"--config.data.{name}={expression}: {one_line(error)}; {builder.name} has {there}"
        ) from error
    files = _names(builder, expression)
    return Split(name, files, np.array(labels, np.int32), encoded)


def _names(builder: Any, expression: str) -> tuple[str, ...]:
    """The name `SET/SPLIT/INDEX` of each record, which is the same in every split expression that has the record."""
    import tensorflow_datasets as tfds

    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    parts = tfds.core.ReadInstruction.from_spec(expression).to_absolute(builder.info.splits)
    return tuple(
        f"{builder.name}/{part.splitname}/{index:06d}"
        for part in parts
        for index in range(part.from_ or 0, sizes[part.splitname] if part.to is None else part.to)
    )


def _check_disjoint(splits: dict[str, Split], config: Any) -> None:
    """Raises ConfigError if a record is in two splits: validation on trained images measures nothing."""
    for first, second in itertools.combinations(splits, 2):
        if common := set(splits[first].files) & set(splits[second].files):
            raise ConfigError(
                f"--config.data.{first}={getattr(config.data, first)} and --config.data.{second}="
                f"{getattr(config.data, second)} share {counted(len(common), 'record')}, such as {min(common)}; use "
                "expressions that do not overlap, such as train[:80%] and train[80%:]"
            )


Records = tuple[Sequence[int], Callable[[int], bytes]]


def _random_access(builder: Any, expression: str, image: str, label: str) -> Records:
    import tensorflow_datasets as tfds

    records = builder.as_data_source(split=expression, decoders={image: tfds.decode.SkipDecoding()})
    return [int(records[index][label]) for index in range(len(records))], lambda index: records[index][image]


def _in_memory(builder: Any, expression: str, image: str, label: str) -> Records:
    import tensorflow_datasets as tfds

    dataset = builder.as_dataset(
        split=expression,
        shuffle_files=False,
        decoders={image: tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    labels, encoded = [], []
    for record in dataset.as_numpy_iterator():
        labels.append(int(record[label]))
        encoded.append(record[image])
    return labels, encoded.__getitem__


def _check_every_class(split: Split, classes: Sequence[str], expression: str) -> None:
    """Raises DataError if train or validation has no record of a class; warns of classes that test lacks."""
    missing = [repr(name) for label, name in enumerate(classes) if not (split.labels == label).any()]
    if not missing:
        return
    text = f"--config.data.{split.name}={expression}: no record of class {', '.join(missing)} in this split"
    if split.name != "test" or len(missing) == len(classes):
        raise DataError(f"{text}; choose another expression, or classes with --config.data.classes")
    logger.warning("%s; test is measured on the other classes", text)
