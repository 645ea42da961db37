"""TFDS sets by name, of either file format, through jaxcat's own decoder; nothing is downloaded unless asked for."""

import http.server
import importlib.util
import io
import shlex
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcat.config import default
from jaxcat.data.indexing import tfds_splits
from jaxcat.data.sources import open_data
from jaxcat.errors import ConfigError, DataError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_datasets") is None, reason="tensorflow_datasets is not installed"
)

CLASSES = ("cat", "dog", "fox")
FORMATS = ["array_record", "tfrecord"]


def encoded(number: int) -> bytes:
    """An image that tells which it is: its first pixel, as a person sees it, is its number; some lie upside down."""
    pixels = np.full((6, 4, 3), 200, np.uint8)
    pixels[0, 0] = number
    exif = Image.Exif()
    exif[0x0112] = 3 if number % 4 == 0 else 1  # 3: turned by 180°
    stored = pixels[::-1, ::-1] if number % 4 == 0 else pixels
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def website():
    """A server with 72 images at /NUMBER.png; yields its address and the list of what was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = encoded(int(self.path.strip("/").removesuffix(".png")))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.fixture(scope="session")
def builders(website) -> dict[str, type]:
    """Four sets that TFDS knows by name in this process: 60 images in train, 12 in test."""
    import tensorflow_datasets as tfds

    class Base(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        IMAGE, LABEL = "image", "label"

        def _info(self):
            features = {
                "number": np.int64,
                self.IMAGE: tfds.features.Image(shape=(None, None, 3)),
                self.LABEL: tfds.features.ClassLabel(names=CLASSES) if self.LABEL != "box" else np.int64,
            }
            keys = (self.IMAGE, self.LABEL) if self.LABEL == "kind" else None
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=keys
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(range(60)), "test": self._generate_examples(range(60, 72))}

        def _generate_examples(self, numbers):
            for number in numbers:
                label = number % 3 if self.LABEL == "box" else CLASSES[number % 3]
                yield number, {"number": number, self.IMAGE: io.BytesIO(encoded(number)), self.LABEL: label}

    class JaxcatTiny(Base):
        pass

    class JaxcatRenamed(Base):
        IMAGE, LABEL = "image", "kind"

    class JaxcatUnlabelled(Base):
        LABEL = "box"

    class JaxcatRemote(Base):
        def _split_generators(self, dl_manager):
            dl_manager.download(f"{website[0]}/1.png")
            return super()._split_generators(dl_manager)

    return {builder.name: builder for builder in (JaxcatTiny, JaxcatRenamed, JaxcatUnlabelled, JaxcatRemote)}


@pytest.fixture(scope="session")
def prepared(builders, tmp_path_factory) -> dict[str, Path]:
    """Data directories by file format, with all but the remote set prepared in them."""
    places = {}
    for file_format in FORMATS:
        places[file_format] = tmp_path_factory.mktemp(file_format)
        for name in ("jaxcat_tiny", "jaxcat_renamed", "jaxcat_unlabelled"):
            builders[name](data_dir=places[file_format], file_format=file_format).download_and_prepare()
    return places


def opened(place: Path, name: str = "jaxcat_tiny", **settings):
    config = default()
    config.data.update({"source": "tfds", "name": name, "dir": str(place)})
    config.seed = settings.pop("seed", 0)
    config.data.update(settings)
    return open_data(config)


def numbers(split) -> list[int]:
    """Which images they are, from their pixels."""
    found = []
    for index in range(len(split)):
        image = split.fetch(index)
        assert image.shape == (6, 4, 3)
        assert image.dtype == np.uint8
        found.append(int(image[0, 0, 0]))
    return found


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", ["jaxcat_tiny", "jaxcat_renamed"])
def test_split_expressions(prepared, file_format, name):
    data = opened(prepared[file_format], name, train="train[:50%]", validation="train[50%:75%]", test="test")
    assert data.classes == CLASSES
    found = {split: numbers(records) for split, records in data.splits.items()}
    assert {split: len(images) for split, images in found.items()} == {"train": 30, "validation": 15, "test": 12}
    assert len({number for images in found.values() for number in images}) == 57
    for split, records in data.splits.items():
        assert [data.classes[i] for i in records.labels] == [CLASSES[n % 3] for n in found[split]]
        assert records.labels.dtype == np.int32


def test_both_formats_hold_the_same_and_reading_again_changes_nothing(prepared):
    first, second, again = (opened(prepared[file_format]) for file_format in (*FORMATS, FORMATS[1]))
    for name, split in first.splits.items():
        for other in (second.splits[name], again.splits[name]):
            assert split.files == other.files
            np.testing.assert_array_equal(split.labels, other.labels)
            assert numbers(split) == numbers(other)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_record_has_one_name_however_it_is_reached(prepared, file_format):
    part, whole = (opened(prepared[file_format], train=train, validation="test") for train in ("train[30:]", "train"))
    names = dict(zip(whole.splits["train"].files, numbers(whole.splits["train"]), strict=True))
    found = numbers(part.splits["train"])
    assert [names[name] for name in part.splits["train"].files] == found
    assert len(found) == 30


@pytest.mark.parametrize("file_format", FORMATS)
def test_without_a_validation_expression_some_of_train_is_held_out(prepared, file_format):
    data = opened(prepared[file_format])
    assert {name: np.bincount(split.labels).tolist() for name, split in data.splits.items()} == {
        "train": [16, 16, 16],
        "validation": [4, 4, 4],
    }
    assert sorted(numbers(data.splits["train"]) + numbers(data.splits["validation"])) == list(range(60))
    assert opened(prepared[file_format], seed=1).splits["validation"].files != data.splits["validation"].files


def test_subsets_and_classes(prepared):
    data = opened(prepared["array_record"], train_size=10, validation_size=6, classes="fox,cat", test="test")
    assert data.classes == ("cat", "fox")
    assert {name: np.bincount(split.labels).tolist() for name, split in data.splits.items()} == {
        "train": [5, 5],
        "validation": [3, 3],
        "test": [4, 4],
    }
    for split in data.splits.values():
        assert [number % 3 for number in numbers(split)] == [(0, 2)[label] for label in split.labels]


def test_a_test_split_that_lacks_classes_does_not_stop(prepared, caplog):
    data = opened(prepared["array_record"], validation="train[30:]", train="train[:30]", test="test[:1]")
    (label,) = data.splits["test"].labels
    missing = ", ".join(repr(name) for name in CLASSES if name != data.classes[label])
    assert f"--config.data.test=test[:1]: no record of class {missing} in this split" in caplog.text


def test_min_per_class(prepared, caplog):
    for size in range(6, 30):  # the order of a prepared set is that of TFDS
        wanted = {"train": f"train[:{size}]", "validation": "train[30:]"}
        counts = np.bincount(opened(prepared["array_record"], **wanted).splits["train"].labels)
        fewest, least, _ = sorted(counts)
        if fewest < least:
            break
    data = opened(prepared["array_record"], min_per_class=int(least), **wanted)
    kept = [label for label, count in enumerate(counts) if count >= least]
    assert data.classes == tuple(CLASSES[label] for label in kept)
    assert f"--config.data.min_per_class={least} leaves out 1 of 3 classes: {CLASSES[counts.argmin()]!r}" in caplog.text
    for split in data.splits.values():
        assert [number % 3 for number in numbers(split)] == [kept[label] for label in split.labels]


@pytest.mark.parametrize(
    ("settings", "kind", "fragments"),
    [
        ({"train": "training"}, ConfigError, ("--config.data.train=training", "train (60)", "test (12)")),
        ({"validation": "train[:1.5.2%]"}, ConfigError, ("--config.data.validation=train[:1.5.2%]",)),
        ({"validation": "test[:1]"}, DataError, ("--config.data.validation=test[:1]", "no record of class")),
        ({"test": "train[:10%]"}, ConfigError, ("--config.data.test=train[:10%]", "share 6 records", "do not overlap")),
        ({"train": ""}, ConfigError, ("--config.data.train",)),
        ({"name": ""}, ConfigError, ("--config.data.name",)),
        ({"name": "jaxcat_tinny"}, ConfigError, ("--config.data.name=jaxcat_tinny", "jaxcat_tiny")),
        ({"name": "jaxcat_tiny:7.7.7"}, ConfigError, ("--config.data.name=jaxcat_tiny:7.7.7",)),
        ({"name": "huggingface:beans"}, ConfigError, ("--config.data.name=huggingface:beans", "not supported")),
        ({"name": "jaxcat_unlabelled"}, DataError, ("one class label", "number, image, box")),
        ({"classes": "cat,wolf"}, ConfigError, ("--config.data.classes=cat,wolf", "'wolf'")),
        ({"train_size": 90}, DataError, ("--config.data.train_size=90", "'cat'", "3 to 48")),
    ],
)
@pytest.mark.parametrize("file_format", FORMATS)
def test_requests_that_cannot_work(prepared, file_format, settings, kind, fragments):
    with pytest.raises(kind) as caught:
        opened(prepared[file_format], **{"name": "jaxcat_tiny", **settings})
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_a_set_that_is_not_prepared_is_refused_with_the_command_that_prepares_it(builders, website, tmp_path):
    with pytest.raises(DataError) as caught:
        opened(tmp_path, "jaxcat_remote")
    message = str(caught.value)
    assert "--config.data.name=jaxcat_remote" in message
    assert "--config.data.download=True" in message
    assert str(tmp_path) in message
    assert not website[1]
    assert not list(tmp_path.iterdir())
    (command,) = (line.strip() for line in message.splitlines() if line.strip().startswith("python -c"))
    (code,) = shlex.split(command)[2:]
    exec(code)  # in this process, which knows the set
    assert numbers(opened(tmp_path, "jaxcat_remote").splits["train"])
    assert list(tmp_path.rglob("*.array_record*"))


def test_download_prepares_it_once(builders, website, tmp_path):
    website[1].clear()
    data = opened(tmp_path, "jaxcat_remote", download=True)
    assert sorted(numbers(data.splits["train"]) + numbers(data.splits["validation"])) == list(range(60))
    assert website[1] == ["/1.png"]
    assert list(tmp_path.rglob("*.array_record*"))
    opened(tmp_path, "jaxcat_remote", download=True)
    assert website[1] == ["/1.png"]


def test_a_download_that_fails_says_so(builders, tmp_path, monkeypatch):
    def fail(self, dl_manager):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(builders["jaxcat_remote"], "_split_generators", fail)
    with pytest.raises(DataError, match=r"download=True: cannot prepare jaxcat_remote: no route to host and more$"):
        opened(tmp_path, "jaxcat_remote", download=True)


def test_without_a_network_it_does_not_try_for_minutes_and_says_what_to_do(builders, tmp_path, monkeypatch, caplog):
    def generators(self, dl_manager):
        return {"train": self._generate_examples(dl_manager.download("http://127.0.0.1:1/x.png"))}

    monkeypatch.setattr(builders["jaxcat_remote"], "_split_generators", generators)
    monkeypatch.setattr(tfds_splits, "_RETRIES", 2)
    with pytest.raises(
        DataError, match=r"127\.0\.0\.1 cannot be reached; without a network, .*Connection refused"
    ) as error:
        opened(tmp_path, "jaxcat_remote", download=True)
    assert f"copy it to {tmp_path}/jaxcat_remote/1.0.0" in str(error.value)
    assert "Max retries" not in str(error.value)
    assert not [record for record in caplog.records if record.name.startswith("urllib3")]


@pytest.mark.slow
def test_a_study_of_a_set(prepared, tmp_path):
    import jaxcat

    settings = {"model.backbone": "vgg19", "model.weights": "none", "model.width": 1 / 8, "data.image_size": 32}
    settings |= {"data.dir": prepared["array_record"], "data.name": "jaxcat_tiny", "data.test": "test"}
    found = jaxcat.study.study("tfds", tmp_path / "study", settings=settings)
    assert found.content["images"] == {"train": 48, "validation": 12, "test": 12}
    assert found.content["classes"] == list(CLASSES)
    assert len(found.content["ranges"]) == 20
    assert "--config" in found.command
