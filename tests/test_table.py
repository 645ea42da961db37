"""Tables of paths and labels: read as they were meant, or refused with the line that is wrong."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data import save
from test_settings import request

from jaxcat import check
from jaxcat.config import default
from jaxcat.data.indexing import table_source
from jaxcat.data.indexing.labelled import open_labelled
from jaxcat.data.records import fingerprint
from jaxcat.data.sources import open_data
from jaxcat.errors import ConfigError, DataError
from jaxcat.escaping import for_cell, from_cell
from jaxcat.flags import validate


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "\nx", "'=x", "''-x", "＝x"])
def test_a_formula_gets_an_apostrophe_and_loses_it_again(text):
    assert for_cell(text) == "'" + text
    assert from_cell(for_cell(text)) == text


def test_every_short_text_survives_and_no_two_are_written_alike():
    texts = ["".join(letters) for n in range(4) for letters in itertools.product("'=-@x", repeat=n)]
    written = [for_cell(text) for text in texts]
    assert len(set(written)) == len(texts)
    assert [from_cell(cell) for cell in written] == texts
    assert not [cell for cell in written if cell[:1] in ("=", "-", "@")]
    assert for_cell("it's") == "it's"
    assert for_cell("'quoted'") == "'quoted'"


# A table as data ------------------------------------------------------------------------------------------------------


def images(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        save(root / name, number)
    return root


def opened_table(table: Path, **settings):
    config = default()
    config.data.source, config.data.table = "table", str(table)
    config.seed = settings.pop("seed", 0)
    config.data.update(settings)
    return open_data(config)


def refused_table(table: Path, *fragments: str, **settings) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        opened_table(table, **settings)
    message = str(caught.value)
    for fragment in fragments:
        assert fragment in message, message
    message.encode()
    return message


def labelled(data) -> dict[str, str]:
    """The class name of every record, by the record's name."""
    return {
        file: data.classes[label]
        for split in data.splits.values()
        for file, label in zip(split.files, split.labels, strict=True)
    }


ROWS = {f"{name}{i}.png": name for name in ("cat", "dog") for i in range(4)}


def written(path: Path, rows, *, header=("path", "label"), delimiter=",", encoding="utf-8", end="\n") -> Path:
    """A table file; `rows` are sequences of cells."""
    text = end.join(delimiter.join(row) for row in [header, *rows]) + end
    path.write_bytes(text.encode(encoding))
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    return images(tmp_path, *ROWS)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_delimiters_and_encodings(name, delimiter, encoding, root):
    table = written(root / name, ROWS.items(), delimiter=delimiter, encoding=encoding)
    data = opened_table(table)
    assert data.classes == ("cat", "dog")
    assert labelled(data) == ROWS
    assert len(data.splits["validation"]) == 2
    for split in data.splits.values():
        for index, file in enumerate(split.files):
            np.testing.assert_array_equal(split.fetch(index), np.asarray(Image.open(root / file)))


def test_a_table_to_measure_has_advice_that_evaluate_takes(root):
    config = default()
    for header, says in (
        (("id", "label"), "call the column 'path'"),
        (("path", "class", "label"), "call the column 'label'"),
    ):
        table = written(
            root / "t.csv", [(file, name, name)[: len(header)] for file, name in ROWS.items()], header=header
        )
        with pytest.raises(ConfigError, match=says) as caught:
            open_labelled(table, ("cat", "dog"), config)
        assert "--config" not in str(caught.value)


def test_names_without_suffix(tmp_path):
    """As in Kaggle's dog breeds: id,breed, and the images are train/ID.jpg."""
    table = written(
        tmp_path / "t.csv", [("a.1", "cat"), ("b", "cat"), ("c", "dog"), ("d", "dog")], header=("id", "breed")
    )
    images(tmp_path / "train", "a.1.jpg", "b.JPG", "c.png", "d.jpeg")
    settings = {"path_column": "id", "label_column": "breed", "dir": str(tmp_path / "train")}
    assert labelled(opened_table(table, **settings)) == {
        "a.1.jpg": "cat",
        "b.JPG": "cat",
        "c.png": "dog",
        "d.jpeg": "dog",
    }
    images(tmp_path / "train", "d.png")  # which one?
    refused_table(
        table, "1 × a name that several files have; write it with its suffix: line 5 (d: d.jpeg, d.png)", **settings
    )
    (tmp_path / "train" / "d").write_bytes((tmp_path / "train" / "d.png").read_bytes())
    assert "d" in labelled(opened_table(table, **settings))


def test_other_suffixes_are_not_looked_for_where_a_file_has_the_name(tmp_path, monkeypatch):
    table = written(tmp_path / "t.csv", [(name, name[:3]) for name in ("cat0", "cat1", "dog0", "dog1")])
    for name in ("cat0", "cat1", "dog0", "dog1"):
        images(tmp_path, f"{name}.png")
        (tmp_path / f"{name}.png").rename(tmp_path / name)
    monkeypatch.setattr(table_source, "_with_suffix", None)
    assert len(labelled(opened_table(table))) == 4


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\n,,\n"])
def test_ends_of_lines_and_empty_lines(end, root):
    assert labelled(opened_table(written(root / "t.csv", ROWS.items(), end=end))) == ROWS


def test_excels_name_of_the_delimiter_and_quoted_cells_with_line_breaks(root):
    rows = [(f'"{path}"', f'"{label}"', '"a; ""b""\nsecond line"') for path, label in ROWS.items()]
    table = written(root / "t.csv", rows, header=("File Name", "Class", "notes"), delimiter=";")
    table.write_text("sep=;\n" + table.read_text())
    assert labelled(opened_table(table)) == ROWS
    table.write_text(table.read_text() + "gone.png;cat;\n")
    refused_table(table, f"line {2 + 2 * len(rows) + 1} (gone.png)")  # the line of an editor


def test_the_columns_that_were_found_are_said_and_may_be_named(root, caplog):
    rows = [(path, label, "3") for path, label in ROWS.items()]
    table = written(root / "t.csv", rows, header=("my file", "kind", "stars"))
    refused_table(table, "no column of paths", "my file, kind, stars", "--config.data.path_column=NAME")
    refused_table(table, "no column 'my fill'; ", "did you mean 'my file'", path_column="my fill")
    assert labelled(opened_table(table, path_column="my file", label_column="kind")) == ROWS
    assert "found" not in caplog.text
    opened_table(written(root / "u.csv", ROWS.items(), header=("Image_Path", " LABEL ")))
    assert "found paths in 'Image_Path', labels in 'LABEL'" in caplog.text


def test_two_columns_that_may_be_meant_are_refused(root):
    rows = [(path, label, "1") for path, label in ROWS.items()]
    table = written(root / "t.csv", rows, header=("path", "label", "class"))
    refused_table(table, "'label' and 'class'", "--config.data.label_column=NAME")
    assert labelled(opened_table(table, label_column="label")) == ROWS
    table = written(root / "t.csv", rows, header=("path", "label", "label"))
    refused_table(table, "several columns are called 'label'")
    grouped = written(root / "t.csv", [(*row, "x") for row in rows], header=("path", "label", "patient", "video"))
    refused_table(grouped, "'patient' and 'video'", "--config.data.group_column=none")
    assert opened_table(grouped, group_column="none").splits["train"].groups is None


def test_a_header_that_is_missing(root):
    table = written(root / "t.csv", list(ROWS.items())[1:], header=("cat0.png", "cat"))
    refused_table(table, "no column of paths", "cat0.png, cat", "looks like a record", "path,label")


def test_missing_files_and_other_bad_rows_are_listed_with_their_lines(root):
    (root / "folder.png").mkdir()
    os.mkfifo(root / "pipe.png")
    rows = [*ROWS.items(), ("none.png", "cat"), ("folder.png", "cat"), ("pipe.png", "dog"), ("", "dog")]
    rows += [("https://example.com/x.png", "dog"), ("/dev/zero", "dog"), ("cat0.png/x", "cat"), ("x" * 300, "cat")]
    rows += [(f"gone{i}.png", "cat") for i in range(20)] + [("dog1.png", "")]
    message = refused_table(
        written(root / "t.csv", rows),
        *("21 × a file that is missing: line 10 (none.png), line 18 (gone0.png)", ", …"),
        *("1 × a folder, not a file: line 11", "2 × no regular file: line 12 (pipe.png), line 15 (/dev/zero)"),
        *("1 × no path: line 13", "1 × a URL; download the file and name it: line 14 (https:", "1 × no label: line 38"),
    )
    assert message.count("gone") == 4


@pytest.mark.parametrize("cell", ["s3://bucket/a.png", "file:///a.png", "HTTP://x/a.png", "data:image/png;base64,x"])
def test_urls_are_refused_by_name(cell, root):
    refused_table(written(root / "t.csv", [*ROWS.items(), (f'"{cell}"', "cat")]), "a URL", "line 10")
    with pytest.raises(ConfigError, match="a URL"):
        validate(request(data__source="table", data__table="https://example.com/t.csv"))


def test_ragged_rows_and_broken_quotes_name_their_lines(root):
    rows = [*ROWS.items(), ("cat0.png",), ("cat1.png", "cat", "more"), ("cat2.png", "cat", "", "")]
    refused_table(written(root / "t.csv", rows), "2 rows with other than the 2 cells", "line 10 has 1, line 11 has 3")
    refused_table(written(root / "t.csv", [*ROWS.items(), ('"cat0.png', "cat")]), "line 10", "quote")
    refused_table(written(root / "t.csv", [*ROWS.items(), ('"cat0.png"x', "cat")]), "line 10", "quote")
    refused_table(written(root / "t.csv", [*ROWS.items(), ("x" * 200_000, "cat")]), "line 10", "field limit")


def test_repeated_rows_count_once_and_a_file_has_one_label(root, caplog):
    table = written(
        root / "t.csv", [*ROWS.items(), ("cat0.png", "cat"), ("./cat0.png", "cat"), ("x/../cat0.png", "cat")]
    )
    (root / "x").mkdir()
    assert labelled(opened_table(table)) == ROWS
    assert "rows that repeat an earlier one count once: line 10, line 11, line 12" in caplog.text
    table = written(root / "t.csv", [*ROWS.items(), ("cat0.png", "dog")])
    refused_table(table, "another label", "line 10 (cat0.png: 'cat' in line 2, 'dog' here)")


def test_labels_are_text(root):
    rows = [(path, "01" if label == "cat" else "1") for path, label in ROWS.items()]
    assert opened_table(written(root / "t.csv", rows)).classes == ("01", "1")
    rows = [(path, " NA " if label == "cat" else "1.0") for path, label in ROWS.items()]
    assert opened_table(written(root / "t.csv", rows)).classes == ("1.0", "NA")
    rows = [
        (path, "caf\u00e9" if path in ("cat0.png", "cat1.png") else "cafe\u0301" if label == "cat" else "x")
        for path, label in ROWS.items()
    ]
    assert opened_table(written(root / "t.csv", rows)).classes == ("caf\u00e9", "x")
    rows = [(path, label + "\x07") for path, label in ROWS.items()]
    refused_table(written(root / "t.csv", rows), "cannot be printed", "line 2", "x07")


def test_what_a_spreadsheet_was_kept_from_running_is_read_as_it_was(tmp_path):
    names = {"=1.png": "=a", "-2.png": "=a", "'=3.png": "+b", "@4.png": "+b"}
    images(tmp_path, *names)
    rows = [(for_cell(path), for_cell(label)) for path, label in names.items()]
    assert all(cell[0] == "'" for row in rows for cell in row)
    assert labelled(opened_table(written(tmp_path / "t.csv", rows), validation_fraction=0.0)) == names


def test_paths_from_elsewhere(root, tmp_path_factory):
    """From another base, absolute, by "..", through links, with backslashes and spaces, in another Unicode form."""
    away = images(tmp_path_factory.mktemp("away"), "a.png", "b/c d.png", "b/u\u0308.png")
    (root / "link").symlink_to(away / "b")
    cells = {
        str(away / "a.png"): str(away / "a.png"),
        os.path.relpath(away / "b/c d.png", root): os.path.relpath(away / "b/c d.png", root),
        "link\\\u00fc.png": "link/u\u0308.png",
        " cat0.png": "cat0.png",
        str(root / "cat1.png"): "cat1.png",
        "link/../a.png": os.path.relpath(away / "a.png", root),
    }
    rows = [(cell, "ab"[number % 2]) for number, cell in enumerate(cells)]
    data = opened_table(written(root / "t.csv", rows), validation_fraction=0.0)
    assert sorted(data.splits["train"].files) == sorted(cells.values())
    for index in range(len(data.splits["train"])):
        data.splits["train"].fetch(index)
    (root / "tables").mkdir()
    table = written(root / "tables" / "t.csv", ROWS.items())
    refused_table(table, "8 × a file that is missing")
    assert labelled(opened_table(table, dir=str(root))) == ROWS
    refused_table(table, "--config.data.dir=/nowhere: there is no such folder", dir="/nowhere")


def test_a_table_that_is_not_utf8_is_read_as_windows_writes_it_and_that_is_said(root, caplog):
    rows = [(path, "größe" if label == "cat" else "x") for path, label in ROWS.items()]
    data = opened_table(written(root / "t.csv", rows, encoding="cp1252"))
    assert data.classes == ("größe", "x")
    assert "not UTF-8, read as cp1252" in caplog.text
    os.rename(root / "cat0.png", os.fsencode(root) + b"/caf\xe9.png")
    rows[0] = ("café.png", "x")
    data = opened_table(written(root / "t.csv", rows, encoding="latin-1"), validation_fraction=0.0)
    assert any(os.fsencode(file) == b"caf\xe9.png" for file in data.splits["train"].files)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"PK\x03\x04rest", "Excel"),
        (b"\x1f\x8brest", "gunzip"),
        (b'[{"path": 1}]', "JSON"),
        (b"<html>", "HTML"),
        (b"path,label\n\0\0\0,x", "NUL"),
        (b"PAR1 but not really", "damaged Parquet"),
        (b"path,label\n", "no image of train"),
    ],
)
def test_files_that_are_no_table(content, says, root):
    (root / "t.csv").write_bytes(content)
    refused_table(root / "t.csv", f"--config.data.table={root / 't.csv'}", says)
    refused_table(root, "not a regular file")
    refused_table(root / "none.csv", "No such file")


def test_splits_and_unknown_labels(root, caplog):
    images(root, *(f"{name}9.png" for name in ("cat", "dog", "fox")))
    rows = [(path, label, "Train") for path, label in ROWS.items()]
    rows += [("cat9.png", "cat", "val"), ("dog9.png", "dog", "VALIDATION")]
    header = ("path", "label", "split")
    data = opened_table(written(root / "t.csv", rows, header=header))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "validation": 2}
    unknown = [*rows, ("fox9.png", "fox", "val")]
    refused_table(written(root / "t.csv", unknown, header=header), "train does not have", "line 12 (fox)")
    refused_table(written(root / "t.csv", rows[:-1], header=header), "no image of validation has the label 'dog'")
    odd = [*rows, ("fox9.png", "cat", "group a"), ("fox9.png", "cat", "")]
    refused_table(written(root / "t.csv", odd, header=header), "2 × a split that is none", "line 12 (group a), line 13")
    tested = [*rows, ("fox9.png", "fox", "test")]
    assert "test" not in opened_table(written(root / "t.csv", tested, header=header)).splits
    assert "1 of 1 images of test have no label that train has" in caplog.text
    data = opened_table(written(root / "t.csv", odd, header=header), split_column="none")
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 11
    with_cats = opened_table(written(root / "t.csv", rows[:9], header=header), split_column="none", classes="cat,dog")
    assert with_cats.classes == ("cat", "dog")


def test_groups_of_a_table_stay_together_and_must_not_span_splits(root):
    rows = [(path, label, path[3]) for path, label in ROWS.items()]  # cat0 and dog0 are one group
    table = written(root / "t.csv", rows, header=("path", "label", "Patient ID"))
    for seed in range(5):
        splits = opened_table(table, seed=seed).splits
        assert not set(splits["train"].groups) & set(splits["validation"].groups)
        assert all(file[3] == group for file, group in zip(splits["train"].files, splits["train"].groups, strict=True))
    rows = [(*row, "val" if row[0] in ("cat0.png", "dog1.png") else "train") for row in rows]
    table = written(root / "t.csv", rows, header=("path", "label", "group", "split"))
    refused_table(table, "2 of 4 groups are in more than one split", "0 (train and validation)")
    assert len(opened_table(table, group_column="none").splits["validation"]) == 2
    table = written(root / "t.csv", [(*row[:2], "") for row in rows], header=("path", "label", "group"))
    refused_table(table, "8 × no group")


def test_the_order_of_the_rows_does_not_matter(root):
    first = opened_table(written(root / "t.csv", ROWS.items()))
    second = opened_table(written(root / "t.csv", reversed(ROWS.items())))
    assert fingerprint(first.splits) == fingerprint(second.splits)


def parquet(file: Path, /, **columns) -> Path:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), file)
    return file


def test_parquet(root):
    import pyarrow as pa

    paths, labels = list(ROWS), list(ROWS.values())
    assert labelled(opened_table(parquet(root / "t.parquet", path=paths, label=labels))) == ROWS
    assert (
        labelled(opened_table(parquet(root / "t.csv", path=paths, label=pa.array(labels).dictionary_encode()))) == ROWS
    )
    for values, classes in [
        ([7] * 4 + [10] * 4, ("10", "7")),
        (["07"] * 4 + ["7"] * 4, ("07", "7")),
        ([7.0] * 4 + [10.0] * 4, ("10", "7")),
        ([True] * 4 + [False] * 4, ("False", "True")),
    ]:
        assert opened_table(parquet(root / "t.parquet", path=paths, label=values)).classes == classes
    refused_table(parquet(root / "t.parquet", path=paths, label=[0.5] * 8), "column 'label' has fractions, such as 0.5")
    refused_table(parquet(root / "t.parquet", path=paths, label=[[1]] * 8), "column 'label' is of type list")
    refused_table(parquet(root / "t.parquet", path=paths, label=[None, *labels[1:]]), "no label: row 1")
    refused_table(parquet(root / "t.parquet", path=[None, *paths[1:]], label=labels), "no path: row 1")
    floats = parquet(root / "t.parquet", path=paths, label=[float("nan")] + [1.0] * 7)
    refused_table(floats, "no label: row 1")
    whole = (root / "t.parquet").read_bytes()
    (root / "t.parquet").write_bytes(whole[: len(whole) // 2] + whole[-60:])
    refused_table(root / "t.parquet", "--config.data.table=")


def test_settings_of_a_table_need_the_source():
    for name in ("table", "path_column", "label_column", "split_column", "group_column"):
        with pytest.raises(ConfigError, match=f"--config.data.{name}=x needs --config.data.source=table"):
            validate(request(**{f"data__{name}": "x"}))
    with pytest.raises(ConfigError, match="--config.data.table is empty"):
        validate(request(data__source="table"))
    validate(request(data__source="table", data__table="t.csv", data__dir=""))


def test_reading_a_table_imports_no_tensorflow(root):
    parquet(root / "t.parquet", path=list(ROWS), label=list(ROWS.values()))
    code = (
        "import sys\n"
        "from jaxcat.config import default\n"
        "from jaxcat.data.sources import open_data\n"
        "config = default()\n"
        f"config.data.source, config.data.table = 'table', {str(root / 't.parquet')!r}\n"
        "open_data(config)\n"
        "print(sorted({'jax', 'tensorflow', 'tensorflow_datasets', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_the_sign_digits_by_table_and_by_group(shared):
    table = shared / "data" / "sign_digits_groups.csv"
    data = opened_table(table)
    assert data.classes == tuple("0123456789")
    assert sum(map(len, data.splits.values())) == 2062
    train, validation = data.splits["train"], data.splits["validation"]
    assert not set(train.groups or ()) & set(validation.groups or ())
    shares = np.bincount(validation.labels) / (np.bincount(validation.labels) + np.bincount(train.labels))
    np.testing.assert_allclose(shares, 0.2, atol=0.01)
    assert all(data.classes[label] == file.split("/")[1] for file, label in zip(train.files, train.labels, strict=True))


# Evaluation and check -------------------------------------------------------------------------------------------------


def test_a_table_to_evaluate_on(root):
    rows = [(path, label, "test", "one") for path, label in ROWS.items()]
    table = written(root / "others.csv", rows, header=("path", "label", "split", "group"))
    split = open_labelled(table, ("dog", "cat"), default())
    assert {file: ("dog", "cat")[label] for file, label in zip(split.files, split.labels, strict=True)} == ROWS
    assert split.name == "others"
    with pytest.raises(DataError, match=r"(?s)--data .*4 × a label that this classifier does not know: line 6 \(dog\)"):
        open_labelled(table, ("cat", "fox"), default())
    config = default()
    config.data.path_column = "nothing"
    with pytest.raises(ConfigError, match="--data .*no column 'nothing'"):
        open_labelled(table, ("dog", "cat"), config)
    with pytest.raises(DataError, match="there is no such folder"):
        open_labelled(root / "none", ("dog", "cat"), default())


def test_classes_by_name_to_evaluate_on(tmp_path):
    images(tmp_path / "flat", "cat.1.png", "dog.1.png")
    images(tmp_path / "folders", "cat/1.png", "dog/x.1.png")
    config = default()
    config.data.label_pattern = r"^(cat|dog)\."
    assert open_labelled(tmp_path / "flat", ("dog", "cat"), config).labels.tolist() == [1, 0]
    assert open_labelled(tmp_path / "folders", ("dog", "cat"), config).labels.tolist() == [1, 0]


def test_check_takes_a_table_and_a_run_that_holds_nothing_out(root, capsys):
    table = written(root / "t.csv", ROWS.items())
    assert check.main([str(table)]) == 0
    assert check.main([str(table), "--config.data.validation_fraction=0"]) == 0
    shown = capsys.readouterr().out
    assert "8 images, 0 unreadable" in shown
    assert "validation: 0 images" in shown
    with pytest.raises(DataError, match="line 10 \\(none.png\\)"):
        check.main([str(written(root / "t.csv", [*ROWS.items(), ("none.png", "cat")]))])
    with pytest.raises(DataError, match="there is no such table"):
        check.main([str(root / "none.csv"), "--config.data.source=table"])


def test_a_column_that_names_splits_is_not_passed_over(root):
    rows = [(path, label, "test" if path.endswith("0.png") else "train") for path, label in ROWS.items()]
    header = ("path", "label", "data set")
    refused_table(written(root / "t.csv", rows, header=header), "'data set' seems to say", "split_column='data set'")
    split = opened_table(written(root / "t.csv", rows, header=header), split_column="data set").splits
    assert len(split["test"]) == 2
    assert "test" not in opened_table(written(root / "t.csv", rows, header=header), split_column="none").splits
    columns = {"path": list(ROWS), "label": list(ROWS.values()), "set": [row[2] for row in rows]}
    refused_table(parquet(root / "t.parquet", **columns), "'set' seems to say")


def test_columns_of_splits_by_other_words_and_of_yes_and_no(root, caplog):
    """As in FER2013's Usage, and fastai's is_valid; runs by older rules go on without them."""
    chosen = [path.endswith("0.png") for path in ROWS]
    usage = ["PrivateTest" if each else "Training" for each in chosen]
    columns = {"path": list(ROWS), "label": list(ROWS.values())}
    table = parquet(root / "t.parquet", Usage=usage, **columns)
    refused_table(table, "'Usage' seems to say which split", "split_column=Usage")
    assert len(opened_table(table, split_column="Usage").splits["test"]) == 2
    assert "column 'Usage': words read as splits: 'PrivateTest' for test" in caplog.text
    assert "Training" not in caplog.text
    for name in ("is_valid", "isTest", "train"):
        for cells in (chosen, [int(each) for each in chosen], ["yes" if each else "" for each in chosen]):
            table = parquet(root / "t.parquet", **columns, **{name: cells})
            refused_table(table, f"'{name}' seems to say which rows are of a split", "split_column=none")
            assert "test" not in opened_table(table, split_column="none").splits
    config = default()
    config.data.source, config.data.table = "table", str(table)
    assert len(open_data(config, rules=5).splits["train"]) > 4
    kept = ["train" if each else "not train" for each in chosen]
    refused_table(parquet(root / "t.parquet", **columns, split=kept), "6 × a split that is none of train")
    for name, cells in {"is_valid": [True] * len(ROWS), "test": ["pos", "neg"] * 4, "used": chosen}.items():
        opened_table(parquet(root / "t.parquet", **columns, **{name: cells[: len(ROWS)]}))


def test_columns_that_are_called_as_readme_calls_them_need_no_warning(root, caplog):
    assert labelled(opened_table(written(root / "t.csv", ROWS.items(), header=("path", "label")))) == ROWS
    assert "found" not in caplog.text
