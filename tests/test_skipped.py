"""Files that are nobody's photographs, and images that are passed over: counted by reason, alike in all commands."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from test_data import flat, opened

from jaxcat.data.images import heif
from jaxcat.data.images.decoding import SUFFIXES
from jaxcat.data.indexing.folder import open_labelled_folder
from jaxcat.data.indexing.skipped import Reason, Skipped, left_behind
from jaxcat.data.indexing.walking import image_files, walk

REPOSITORY = Path(__file__).resolve().parent.parent


def image(form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, form)
    return buffer.getvalue()


def put(path: Path, content: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image() if content is None else content)
    return path


LEFT = [
    *("._000.png", "@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg", "@eaDir/000.png/SYNOPHOTO_THUMB_XL.jpg", "#recycle/old.png"),
    *("@Recycle/old.png", ".@__thumb/s100000.png", "$RECYCLE.BIN/S-1-5/$R1.png", "System Volume Information/x.png"),
    *("lost+found/1.png", ".thumbnails/large/1.png", "__MACOSX/cat/._000.png", ".AppleDouble/000.png"),
    *(".ipynb_checkpoints/000-checkpoint.png", ".picasaoriginals/000.png", "Catalog Previews.lrdata/a/1.jpg"),
    *(".Trash-1000/files/1.png", "[Originals]/000.png", "CaptureOne/Cache/1.jpg", ".stversions/000.png", "~$000.png"),
    *("SYNOPHOTO_THUMB_S.jpg", "AlbumArtSmall.jpg", "AlbumArt_{1-2}_Large.jpg", "RECYCLER/1.png", ".trashed-1-a.jpg"),
    *(".git/a.png", "~snapshot/daily/1.png", "FOUND.000/1.jpg", "_vti_cnf/000.png", "_thumbs/000.png"),
    *("Photos Library.photoslibrary/resources/1.jpg", "appdata_oc1/preview/1.png"),
]


@pytest.mark.parametrize("name", LEFT)
def test_nobodys_photographs_are_skipped_wherever_they_lie(name, tmp_path):
    flat(tmp_path, cat=3, dog=3)
    for folder in (tmp_path, tmp_path / "cat", tmp_path / "dog" / "deep" / "er"):
        put(folder / name)
    data = opened(tmp_path)
    assert data.classes == ("cat", "dog")
    assert sum(map(len, data.splits.values())) == 6
    assert data.skipped.count(Reason.LEFT) == len(data.skipped) == 3
    split = open_labelled_folder(tmp_path, ("cat", "dog"))
    assert len(split) == 6
    skipped = Skipped()
    assert len(list(walk(tmp_path, skipped))) == 6, "predict"
    assert skipped.count(Reason.LEFT) == len(skipped) == 3


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "ehthumbs_vista.db",
        "Picasa.ini",
        "ZbThumbnail.info",
        "Icon\r",
        ".nomedia",
    ],
)
def test_metadata_that_are_no_images(name, tmp_path):
    put(tmp_path / "cat" / name, b"x")
    skipped = Skipped()
    assert not list(image_files(tmp_path, skipped))
    assert skipped.count(Reason.LEFT) == 1


@pytest.mark.parametrize(
    "name", ["photo.jpg~", "photo.jpg.bak", "photo.jpg_original", "photo.png.orig", "MVI_1.THM", "a.tmp"]
)
def test_backups_of_editors(name, tmp_path):
    put(tmp_path / name, image("JPEG"))
    skipped = Skipped()
    assert not list(image_files(tmp_path, skipped))
    assert skipped.count(Reason.LEFT) == 1


@pytest.mark.parametrize(
    "name",
    ["misc", "private", "recycler", "originals", "recycle", "cache", "trash", "snapshot", "thumb", "thumbs", "eadir"],
)
def test_classes_that_are_called_like_that(name, tmp_path):
    flat(tmp_path, **{name: 3, "dog": 3})
    assert name in opened(tmp_path).classes


@pytest.mark.parametrize("name", ["thumbs/000.png", "Thumbnails/000.jpg", "thumb/tn_001.jpg", "thumbs/002_tn.png"])
def test_thumbnails_of_the_images_beside_their_folder(tmp_path, name):
    flat(tmp_path, cat=3, dog=3)
    put(tmp_path / "cat" / name)
    data = opened(tmp_path)
    assert sum(map(len, data.splits.values())) == 6
    assert data.skipped.count(Reason.LEFT) == len(data.skipped) == 1
    put(tmp_path / "cat" / Path(name).parent / "another.png")  # so these may be images of their own
    assert sum(map(len, opened(tmp_path).splits.values())) == 8


def test_a_run_by_older_rules_keeps_what_only_newer_ones_skip(tmp_path):
    flat(tmp_path, cat=3, dog=3)
    for name in ("cat/thumbs/000.png", "dog/_thumbs/000.png"):
        put(tmp_path / name)
    assert len(list(walk(tmp_path, None, rules=4))) == 8
    assert len(list(walk(tmp_path, None))) == 6


def test_thumbnails_of_images_that_the_rules_do_not_read_are_kept(tmp_path):
    """So pi-heif that is installed later changes no run."""
    put(tmp_path / "cat/IMG_1.heic")
    thumbnail = put(tmp_path / "cat/thumbs/IMG_1.png")
    assert list(walk(tmp_path, None, rules=6)) == [thumbnail]
    assert list(walk(tmp_path, None, rules=7)) == [tmp_path / "cat/IMG_1.heic"]


def test_folders_beside_the_photographs_on_a_cameras_card(tmp_path):
    flat(tmp_path, dog=3)
    put(tmp_path / "cat/DCIM/100CANON/IMG_1.png")
    put(tmp_path / "cat/DCIM/100CANON/IMG_2.png", image("JPEG"))
    put(tmp_path / "cat/MISC/1.jpg")
    put(tmp_path / "cat/PRIVATE/AVCHD/1.jpg")
    data = opened(tmp_path)
    assert sum(map(len, data.splits.values())) == 5
    assert data.skipped.count(Reason.LEFT) == 2
    assert left_behind("MISC", siblings=["DCIM"], folder=True)
    assert not left_behind("MISC", siblings=["cat"], folder=True)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (".000.png", None, Reason.HIDDEN),
        (".hidden/000.png", None, Reason.HIDDEN),
        (".hidden", None, Reason.HIDDEN),
        ("photo", None, Reason.SUFFIX),
        ("photo.dat", image("JPEG"), Reason.SUFFIX),
        ("photo.jpg.1", image("JPEG"), Reason.SUFFIX),
        ("photo.jpg?w=100", image("WEBP"), Reason.SUFFIX),
        ("photo.jxl", b"\xff\x0a", Reason.FORMAT),
        ("photo", b"\0\0\0\x18ftypmif1", Reason.SUFFIX if heif.installed() else Reason.HEIC),
        ("photo.CR2", b"II*\0", Reason.FORMAT),
        ("photo.NEF", b"MM\0*", Reason.FORMAT),
        ("photo.psd", b"8BPS\0\x01", Reason.FORMAT),
        ("photo.svg", b"<svg/>", Reason.FORMAT),
        ("notes.txt", b"BM is no bitmap", Reason.OTHER),
        ("empty", b"", Reason.OTHER),
        ("list.csv", b"a,b\n", Reason.OTHER),
    ],
)
def test_images_that_are_there_and_passed_over_are_counted(name, content, reason, tmp_path):
    flat(tmp_path, cat=3, dog=3)
    put(tmp_path / "cat" / name, content)
    data = opened(tmp_path)
    assert sum(map(len, data.splits.values())) == 6
    assert data.skipped.count(reason) == len(data.skipped) == 1
    (line,) = data.skipped.lines()
    assert line.startswith("1 file skipped: ")
    assert name.split("/")[0] in line


def test_images_beside_class_folders_and_beside_splits(tmp_path):
    flat(tmp_path / "train", cat=3, dog=3)
    flat(tmp_path / "test", cat=3, dog=3, fox=2)
    flat(tmp_path / "seg_pred", x=4)
    put(tmp_path / "train" / "loose.png")
    put(tmp_path / "cover.png")
    put(tmp_path / "test" / "labels.txt", b"x")
    skipped = opened(tmp_path, train_dir="train", test_dir="test").skipped
    assert {reason: skipped.count(reason) for reason in Reason if skipped.count(reason)} == {
        Reason.UNLABELLED: 2,
        Reason.BESIDE: 4,
        Reason.OTHER_CLASS: 2,
        Reason.OTHER: 1,
    }


def test_three_examples_and_the_rest_by_number():
    skipped = Skipped()
    for number in range(5):
        skipped.add(f"a\n{number}", Reason.HIDDEN)
    skipped.add("notes.txt", Reason.OTHER)
    assert len(skipped) == 6
    assert skipped.lines() == [
        f"5 files skipped: {Reason.HIDDEN.value} (a\\n0, a\\n1, a\\n2, …)",
        f"1 file skipped: {Reason.OTHER.value} (notes.txt)",
    ]


def test_pipes_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.png")
    skipped = Skipped()
    assert not list(image_files(tmp_path, skipped))
    assert skipped.count(Reason.SPECIAL) == 2


def test_every_suffix_is_seen(tmp_path):
    for suffix in SUFFIXES:
        put(tmp_path / f"a{suffix}")
        put(tmp_path / f"b{suffix.upper()}")
    skipped = Skipped()
    assert len(list(image_files(tmp_path, skipped))) == 2 * len(SUFFIXES)
    assert not len(skipped)


def test_a_folder_that_is_skipped_and_cannot_be_listed_does_not_stop(tmp_path, monkeypatch):
    flat(tmp_path, cat=3, dog=3)
    (tmp_path / "lost+found").mkdir()
    listdir = os.listdir

    def refusing(path):
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refusing)
    assert opened(tmp_path).classes == ("cat", "dog")


@pytest.mark.slow
def test_predict_says_the_same(finished, tmp_path):
    put(tmp_path / "photos" / "a.png")
    for name in ("notes.txt", ".b.png", "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "c.psd"):
        put(tmp_path / "photos" / name, None if name.endswith(("png", "jpg")) else b"x")
    skipped = Skipped()
    list(walk(tmp_path / "photos", skipped))
    command = [sys.executable, "-m", "jaxcat.predict", "--workdir", str(finished), str(tmp_path / "photos")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert len(skipped) == 4
    assert [line for line in done.stderr.splitlines() if "skipped" in line] == skipped.lines()
