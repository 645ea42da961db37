"""Zip and tar archives are read in place; what different programs would read differently is refused by name."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import multiprocessing
import os
import pickle
import random
import re
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import small
from test_data import flat, opened, save

from jaxcat import check, evaluate, predict
from jaxcat.config import default
from jaxcat.data.archives import archives
from jaxcat.data.archives.archive import Archive
from jaxcat.data.archives.archives import open_archive
from jaxcat.data.indexing.folder import open_labelled_folder
from jaxcat.data.indexing.skipped import Skipped
from jaxcat.data.records import fingerprint
from jaxcat.data.sources import open_data
from jaxcat.errors import DataError
from jaxcat.inference.prediction import find
from jaxcat.train import train

FILES = {
    f"train/{name}/{i}.png": random.Random(f"{name}{i}").randbytes(900) * 2 for name in ("a", "b") for i in range(5)
}


def zipped(path: Path, files=FILES, *, method=zipfile.ZIP_DEFLATED, **attributes) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            archive.writestr(info, content)
    return path


def tarred(path: Path, files=FILES, *, form=tarfile.PAX_FORMAT, mode="w", **attributes) -> Path:
    with tarfile.open(path, mode, format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            archive.addfile(info, io.BytesIO(content))
    return path


WRITERS = {
    "stored.zip": lambda path, files=FILES: zipped(path, files, method=zipfile.ZIP_STORED),
    "deflated.zip": zipped,
    "pax.tar": tarred,
    "gnu.tar": lambda path, files=FILES: tarred(path, files, form=tarfile.GNU_FORMAT),
    "ustar.tar": lambda path, files=FILES: tarred(path, files, form=tarfile.USTAR_FORMAT),
}


def refused(path: Path, *fragments: str) -> None:
    with pytest.raises(DataError) as caught:
        open_archive(path)
    for fragment in (str(path), *fragments):
        assert fragment in str(caught.value), caught.value


@pytest.mark.parametrize("kind", WRITERS)
def test_every_member_is_read_as_it_was_written_and_nothing_is_written(kind, tmp_path):
    long = "x" * 90 + "/" + "y" * 90 + "/ü 1.png"
    path = WRITERS[kind](tmp_path / kind, FILES | {long: b"long", "empty.png": b""})
    os.chmod(path, 0o400)
    before = {entry.name: entry.stat().st_mtime_ns for entry in tmp_path.iterdir()}
    archive = Archive(path)
    assert {name: archive.read(name) for name in archive.members} == FILES | {long: b"long", "empty.png": b""}
    assert archive.folders["train"] == ["a", "b"]
    assert archive.folders["train/b"] == [f"{i}.png" for i in range(5)]
    assert {entry.name: entry.stat().st_mtime_ns for entry in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kind", WRITERS)
def test_paths_go_on_inside_an_archive(kind, tmp_path):
    path = WRITERS[kind](tmp_path / kind)
    assert not archives.isdir(path)
    assert open_archive(path) is open_archive(path)
    assert archives.isdir(path)
    assert archives.listdir(path) == ["train"]
    assert archives.isdir(path / "train" / "a")
    assert archives.isfile(path / "train/a/0.png")
    assert not archives.exists(path / "train/a/9.png")
    assert archives.getsize(path / "train/a/0.png") == 1800
    assert archives.read_member(path / "train/a/0.png") == FILES["train/a/0.png"]
    assert archives.read_member(tmp_path / "other.png") is None
    walked = {f"{folder}/{name}" for folder, _, names in archives.walk(path) for name in names}
    assert walked == {f"{path}/{name}" for name in FILES}
    with pytest.raises(OSError, match="No such member"):
        archives.read_member(path / "train/none.png")
    with pytest.raises(OSError, match="Not a directory"):
        archives.listdir(path / "train/a/0.png")
    assert archives.listdir(tmp_path) == [kind]  # paths outside are as ever
    assert archives.isdir(tmp_path)


def _read_all(path: Path) -> bool:
    return all(archives.read_member(path / name) == content for name, content in FILES.items())


@pytest.mark.parametrize("kind", ["deflated.zip", "pax.tar"])
@pytest.mark.parametrize("start", small.slow_except(["fork"], ["fork", "spawn"]))
def test_threads_and_processes_read_at_once(kind, start, tmp_path):
    path = WRITERS[kind](tmp_path / kind)
    archive = open_archive(path)
    assert archive is not None
    with ThreadPoolExecutor(8) as threads:
        names = list(FILES) * 20
        for name, content in zip(names, threads.map(archive.read, names), strict=True):
            assert content == FILES[name]
    copy = pickle.loads(pickle.dumps(archive))
    assert copy.read("train/a/0.png") == FILES["train/a/0.png"]
    if start == "spawn" and kind == "pax.tar":
        return  # one new interpreter is enough
    context = multiprocessing.get_context(start)
    processes = [context.Process(target=_exit_with, args=(path,)) for _ in range(2)]
    for process in processes:
        process.start()
    assert _read_all(path)
    for process in processes:
        process.join(60)
        assert process.exitcode == 7


def _exit_with(path: Path) -> None:
    os._exit(7 if _read_all(path) else 1)


@pytest.mark.parametrize(
    ("mode", "suffix", "command"),
    [("w:gz", "tgz", "tar -xzf"), ("w:bz2", "tar.bz2", "tar -xjf"), ("w:xz", "tar.xz", "tar -xJf")],
)
def test_compressed_archives_are_refused_with_the_command_that_unpacks_them(mode, suffix, command, tmp_path):
    path = tarred(tmp_path / f"images.{suffix}", mode=mode)
    refused(path, f"{command} ")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    assert os.system(f"cd {tmp_path}/out && {command} {path}") == 0
    assert (tmp_path / "out/train/a/0.png").read_bytes() == FILES["train/a/0.png"]


@pytest.mark.parametrize(("suffix", "command"), [("gz", "gunzip"), ("bz2", "bunzip2"), ("xz", "unxz")])
def test_a_compressed_table_is_refused_with_the_command_that_unpacks_it(suffix, command, tmp_path):
    module = {"gz": gzip, "bz2": bz2, "xz": lzma}[suffix]
    path = tmp_path / f"t.csv.{suffix}"
    path.write_bytes(module.compress(b"path,label\na.png,cat\n"))
    refused(path, "a single compressed file", f"`{command} --keep ")
    assert os.system(f"{command} --keep {path}") == 0
    assert (tmp_path / "t.csv").read_bytes() == b"path,label\na.png,cat\n"
    hint = f"--config.data.source=table --config.data.table={tmp_path / 't.csv'}"
    with pytest.raises(DataError, match=re.escape(hint)):
        opened(tmp_path / "t.csv")


@pytest.mark.parametrize("beginning", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\x00", b"\x28\xb5\x2f\xfd"])
def test_other_archives_are_refused_with_a_command(beginning, tmp_path):
    (tmp_path / "x.zip").write_bytes(beginning + bytes(600))
    refused(tmp_path / "x.zip", "Unpack it")


def test_files_that_are_no_archives(tmp_path):
    for number, content in enumerate((b"", b"\x89PNG\r\n\x1a\n", bytes(2000), b"text\n" * 500)):
        (tmp_path / str(number)).write_bytes(content)
        assert open_archive(tmp_path / str(number)) is None
    assert open_archive(tmp_path) is None
    assert open_archive(tmp_path / "none") is None
    os.mkfifo(tmp_path / "pipe")
    assert open_archive(tmp_path / "pipe") is None


# What is never read ---------------------------------------------------------------------------------------------------

BAD_NAMES = [
    "/etc/passwd",
    "../x.png",
    "a/../../x.png",
    "a\\..\\x.png",
    "C:\\x.png",
    "//server/x.png",
    "inner.zip",
    "in.tar.gz",
]


@pytest.mark.parametrize("write", [zipped, tarred])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_outside_and_nested_archives_are_left_out_by_name(write, name, tmp_path, caplog):
    archive = open_archive(write(tmp_path / "x", FILES | {name: b"bad"}))
    assert archive is not None
    assert set(archive.members) == set(FILES)
    assert len(archive.skipped) == 1
    assert "1 member is never read" in caplog.text


def test_links_and_special_files_are_left_out_by_name(tmp_path, caplog):
    path = tarred(tmp_path / "x.tar")
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE):
            info = tarfile.TarInfo(f"train/a/{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    found = open_archive(path)
    assert found is not None
    assert set(found.members) == set(FILES)
    assert [reason for _, reason in found.skipped] == ["a link"] * 2 + ["no regular file"] * 3
    assert "'train/a/2.png' (a link)" in caplog.text
    for mode, reason in (
        (stat.S_IFLNK, "a link"),
        (stat.S_IFIFO, "no regular file"),
        (stat.S_IFCHR, "no regular file"),
    ):
        linked = Archive(zipped(tmp_path / "x.zip", {"a.png": b"/etc/passwd"}, external_attr=(mode | 0o777) << 16))
        assert linked.skipped == [("a.png", reason)]


@pytest.mark.parametrize("write", [zipped, tarred])
def test_two_members_of_one_name_are_refused(write, tmp_path):
    refused(write(tmp_path / "x", FILES | {"train//a/./0.png": b"other"}), "'train/a/0.png'", "two members")
    refused(write(tmp_path / "y", FILES | {"train/a": b"other"}), "'train/a' is both a file and a folder")


def patched(path: Path, place: int, content: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[place : place + len(content)] = content
    path.write_bytes(bytes(whole))
    return path


def central(path: Path, number: int = 0) -> int:
    """Where the central directory has an entry."""
    place, whole = -1, path.read_bytes()
    for _ in range(number + 1):
        place = whole.index(b"PK\x01\x02", place + 1)
    return place


@pytest.mark.parametrize(
    ("offset", "content", "says"),
    [
        (8, struct.pack("<H", 1), "encrypted"),
        (10, struct.pack("<H", 12), "bzip2"),
        (10, struct.pack("<H", 99), "AES"),
        (10, struct.pack("<H", 0), "disagree"),
        (16, b"\1\2\3\4", "disagree"),
        (20, struct.pack("<I", 3), "disagree"),
        (24, struct.pack("<I", 2**31), "disagree"),
        (42, struct.pack("<I", 5), "disagree"),
        (42, struct.pack("<I", 10**7), "damaged"),
        (46, b"other", "disagree"),
    ],
)
def test_a_list_of_members_that_disagrees_with_their_headers_is_refused(offset, content, says, tmp_path):
    path = zipped(tmp_path / "x.zip")
    refused(patched(path, central(path) + offset, content), says)


def test_members_that_share_bytes_are_refused(tmp_path):
    """As in a zip bomb of one kernel that many members quote: the bytes of the first hold the second's header."""
    inner = zipped(tmp_path / "inner.zip", {"b.png": b"x" * 500}).read_bytes()
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", inner)
        (quoted,) = zipfile.ZipFile(tmp_path / "inner.zip").infolist()
        quoted.header_offset = 30 + len("a.png")
        archive.filelist.append(quoted)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["a.png", "b.png"]
    refused(path, "members 'a.png' and 'b.png' overlap")


def test_sizes_are_bounded_before_and_while_a_member_is_read(tmp_path, monkeypatch):
    path = zipped(tmp_path / "x.zip", {"a.png": bytes(10**6), "b.png": b"fine" * 9})
    monkeypatch.setattr("jaxcat.data.archives.archive.MOST_BYTES", 10**5)
    with pytest.raises(ValueError, match="1,000,000 bytes are more than the 100,000"):
        Archive(path).read("a.png")
    assert Archive(path).read("b.png") == b"fine" * 9
    monkeypatch.setattr("jaxcat.data.archives.archive.MOST_BYTES", 2**30)
    asked: list[int] = []
    real = zlib.decompressobj

    class Watched:
        def __init__(self, bits):
            self.inner = real(bits)

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def decompress(self, content, most):
            asked.append(most)
            return self.inner.decompress(content, most)

    monkeypatch.setattr("zlib.decompressobj", Watched)
    for place, size in ((22, 7), (central(path) + 24, 7)):  # both headers say 7 bytes
        patched(path, place, struct.pack("<I", size))
    with pytest.raises(ValueError, match="damaged"):
        Archive(path).read("a.png")
    assert max(asked) <= 8


@pytest.mark.parametrize("kind", WRITERS)
def test_damage_anywhere_is_named_or_harmless(kind, tmp_path):
    """One byte changed, or the end cut off: a DataError, or every member as it was or known to be damaged."""
    whole = WRITERS[kind](tmp_path / kind, {name: FILES[name] for name in list(FILES)[:3]}).read_bytes()
    generator, unknown = random.Random(0), 0
    for trial in range(150):
        path = tmp_path / f"{trial}"
        damaged = bytearray(whole)
        if trial % 3:
            damaged[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        else:
            del damaged[generator.randrange(len(whole)) :]
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            archive = Archive(path)
            for name in archive.members:
                with contextlib.suppress(ValueError, OSError):
                    unknown += archive.read(name) != FILES.get(name)
    assert unknown == 0 or kind.endswith(".tar")  # tar has no checksum of contents


def test_a_damaged_header_in_the_middle_of_a_tar_is_no_end(tmp_path):
    path = tarred(tmp_path / "x.tar", form=tarfile.USTAR_FORMAT)
    refused(patched(path, path.read_bytes().index(b"train/a/3.png"), b"XXXX"), "the header at byte")
    cut = tarred(tmp_path / "y.tar", form=tarfile.USTAR_FORMAT)
    os.truncate(cut, cut.read_bytes().index(b"train/b/4.png") + 600)
    refused(cut, "'train/b/4.png' is cut short")


def test_an_archive_that_changes_after_its_members_were_listed(tmp_path):
    archive = Archive(zipped(tmp_path / "x.zip"))
    zipped(tmp_path / "x.zip", FILES | {"more.png": b"x"})
    with pytest.raises(ValueError, match=r"x\.zip was changed"):
        archive.read("train/a/0.png")


def test_names_as_other_systems_write_them(tmp_path):
    windows = Archive(zipped(tmp_path / "w.zip", {"train\\a\\1.png": b"x"}, create_system=0))
    assert list(windows.members) == ["train/a/1.png"]
    unix = Archive(zipped(tmp_path / "u.zip", {"train\\a.png": b"x"}, create_system=3))
    assert list(unix.members) == ["train\\a.png"]
    path = zipped(tmp_path / "mac.zip", {"caf\u00e9.png": b"x"})  # macOS writes UTF-8 and does not say so
    whole = path.read_bytes()
    flags = struct.unpack_from("<H", whole, 6)[0]
    patched(patched(path, 6, struct.pack("<H", flags & ~0x800)), central(path) + 8, struct.pack("<H", flags & ~0x800))
    assert list(Archive(path).members) == ["caf\u00e9.png"]


def test_a_header_with_sizes_of_64_bits(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    found = Archive(tmp_path / "x.zip")
    assert {name: found.read(name) for name in found.members} == FILES


def test_an_archive_made_while_sizes_were_unknown(tmp_path):
    """Sizes follow the bytes, as when an archive is written to a pipe."""

    class Pipe(io.RawIOBase):
        def __init__(self):
            self.content = b""

        def writable(self):
            return True

        def write(self, content):
            self.content += bytes(content)
            return len(content)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    (tmp_path / "x.zip").write_bytes(pipe.content)
    found = Archive(tmp_path / "x.zip")
    assert {name: found.read(name) for name in found.members} == FILES


# As data --------------------------------------------------------------------------------------------------------------


def folder_of(root: Path) -> Path:
    """Splits, nobody's photographs, and images that lie elsewhere."""
    for split, count in (("train", 6), ("validation", 2), ("test", 1)):
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                save(root / split / name / "deep" / f"{number}.png", 20 * number + 100 * label + len(split))
    save(root / "train" / "loose.png", 3)
    (root / "train" / "cat" / "notes.txt").write_text("x" * 5000)
    (root / "train" / "cat" / "no_suffix").write_bytes((root / "train" / "loose.png").read_bytes())
    save(root / "__MACOSX" / "train" / "cat" / "._0.png", 4)
    save(root / "train" / "cat" / ".hidden.png", 5)
    return root


def packed(root: Path, path: Path, *, top: str = "") -> Path:
    """All files below `root` in an archive; its suffix says which kind."""
    files = {
        f"{top}{file.relative_to(root).as_posix()}": file.read_bytes()
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }
    return zipped(path, files) if path.suffix == ".zip" else tarred(path, files)


def described(data) -> dict:
    return {
        name: (split.files, split.labels.tolist(), [split.digest(i) for i in range(len(split))])
        for name, split in data.splits.items()
    }


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("settings", [{}, {"validation_fraction": 0.5, "train_dir": "train"}, {"classes": "dog,cat"}])
def test_an_archive_is_indexed_as_the_folder_it_was_made_of(suffix, settings, tmp_path, caplog):
    root = folder_of(tmp_path / "images")
    path = packed(root, tmp_path / f"a{suffix}")
    expected = opened(root, **settings)
    found = opened(path, **settings)
    assert found.classes == expected.classes
    assert described(found) == described(expected)
    assert fingerprint(found.splits) == fingerprint(expected.splits)
    assert [line.replace(str(path), str(root)) for line in found.skipped.lines()] == expected.skipped.lines()
    assert len(found.skipped) >= 4
    for name, split in found.splits.items():
        for index in range(len(split)):
            np.testing.assert_array_equal(split.fetch(index), expected.splits[name].fetch(index))


def test_a_folder_in_an_archive_is_data_too(tmp_path):
    path = packed(folder_of(tmp_path / "images"), tmp_path / "a.zip")
    assert opened(path / "train").classes == ("cat", "dog")
    with pytest.raises(DataError, match="no such folder"):
        opened(path / "none")
    code = (
        "from pathlib import Path\n"
        "from jaxcat.data.images.decoding import decode\n"
        "from jaxcat.data.indexing.folder import open_labelled_folder\n"
        f"print(len(open_labelled_folder(Path({str(path / 'validation')!r}), ('cat', 'dog'))))\n"
        f"print(decode(Path({str(path / 'train/cat/deep/0.png')!r}), 'x').shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "4\n(6, 4, 3)\n", done.stderr


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_other_layouts_in_archives(suffix, tmp_path):
    flat(tmp_path / "flat", cat=6, dog=6)
    plain = opened(packed(tmp_path / "flat", tmp_path / f"flat{suffix}"))
    assert described(plain) == described(opened(tmp_path / "flat"))
    deeper = opened(packed(tmp_path / "flat", tmp_path / f"deeper{suffix}", top="data/data/"))
    assert deeper.classes == ("cat", "dog")
    for number in range(4):
        for name in ("cat", "dog"):
            save(tmp_path / "names" / "train" / f"{name}.{number}.png", 30 * number + len(name))
    names = packed(tmp_path / "names", tmp_path / f"names{suffix}")
    assert opened(names, label_pattern=r"^(cat|dog)\.").classes == ("cat", "dog")
    with pytest.raises(DataError, match=r"no class folders.*--config.data.label_pattern="):
        opened(names)
    table = tmp_path / "t.csv"
    table.write_text(
        "path,label\n" + "".join(f"train/{name}.{i}.png,{name}\n" for name in ("cat", "dog") for i in range(4))
    )
    config = default()
    config.data.source, config.data.table, config.data.dir = "table", str(table), str(names)
    listed = open_data(config)
    assert sum(map(len, listed.splits.values())) == 8
    listed.splits["train"].fetch(0)
    table.write_text(table.read_text() + "train/none.png,cat\ntrain,cat\n")
    with pytest.raises(DataError, match=r"(?s)a file that is missing: line 10.*a folder, not a file: line 11"):
        open_data(config)


def test_a_labelled_folder_for_evaluation_and_images_to_predict(tmp_path):
    flat(tmp_path / "flat", cat=2, dog=1)
    path = packed(tmp_path / "flat", tmp_path / "a.zip")
    assert open_labelled_folder(path, ("cat", "dog")).files == ("cat/000.png", "cat/001.png", "dog/000.png")
    found = list(find([path, path / "dog", path / "cat" / "001.png"], Skipped()))
    assert found == [
        path / name for name in ("cat/000.png", "cat/001.png", "dog/000.png", "dog/000.png", "cat/001.png")
    ]
    compressed = tarred(tmp_path / "a.tgz", mode="w:gz")
    (error,) = find([compressed], Skipped())
    assert "tar -xzf" in str(error)
    with pytest.raises(DataError, match="tar -xzf"):
        opened(compressed)
    (tmp_path / "setup.exe").write_bytes(b"MZ" + path.read_bytes())
    with pytest.raises(DataError, match=r"setup\.exe: it is a file, and neither a \.zip nor"):
        opened(tmp_path / "setup.exe")
    (tmp_path / "photo.zip.png").write_bytes((tmp_path / "flat/cat/000.png").read_bytes())
    assert list(find([tmp_path / "photo.zip.png"], Skipped())) == [tmp_path / "photo.zip.png"]


def test_a_damaged_member_is_an_unreadable_image_by_its_name(tmp_path):
    path = packed(flat(tmp_path / "flat", cat=3, dog=3), tmp_path / "a.zip")
    place = path.read_bytes().index(b"cat/001.png") + len("cat/001.png") + 3
    patched(path, place, bytes([path.read_bytes()[place] ^ 0x55]))
    data = opened(path, validation_fraction=0.0)
    split = data.splits["train"]
    with pytest.raises(DataError, match=r"a\.zip/cat/001\.png: damaged"):
        split.fetch(split.files.index("cat/001.png"))
    split.fetch(split.files.index("cat/002.png"))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_run_on_an_archive_is_that_on_the_folder(suffix, tmp_path):
    root = small.image_folder(tmp_path / "images")
    path = packed(root, tmp_path / f"a{suffix}")
    for number, data in enumerate((root, path)):
        config = small.tiny_config(data)
        config.bottleneck.views, config.epochs = number, 1  # streamed, and on bottlenecks
        assert train(config, tmp_path / str(number)) == 0
        assert evaluate.main(["--workdir", str(tmp_path / str(number))]) == 0
        assert evaluate.main(["--workdir", str(tmp_path / str(number)), "--data", str(data / "validation")]) == 0
    first, second = ((tmp_path / f"{number}/evaluation/validation.json").read_text() for number in (0, 1))
    assert json.loads(first)["count"] == json.loads(second)["count"] == 12
    before = path.read_bytes()
    assert check.main([str(path)]) == 0
    assert predict.main(["--workdir", str(tmp_path / "0"), str(path)]) == 0
    assert path.read_bytes() == before
