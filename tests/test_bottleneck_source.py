"""Training on bottlenecks: the losses of streaming whatever is frozen, and the same guarantees."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import small
from small_bottlenecks import SILENT, config_of, opened, prepared, rows_of

import jaxcat
from jaxcat.bottlenecks import rows, source
from jaxcat.bottlenecks.reading import chunks
from jaxcat.bottlenecks.rows import Rows
from jaxcat.data.records import order
from jaxcat.errors import ConfigError
from jaxcat.flags import validate
from jaxcat.runs.meta import read_meta
from jaxcat.runs.workdir import steps
from jaxcat.training import loop
from jaxcat.training.loop import train
from jaxcat.training.steps import steps_in

pytestmark = pytest.mark.usefixtures("empty_cache", "small_batches")


@pytest.fixture
def folder(tmp_path) -> Path:
    return small.image_folder(tmp_path / "images")


def epochs(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def figures(workdir: Path, quantity: str) -> list[float]:
    return [entry[f"{split}/{quantity}"] for entry in epochs(workdir) for split in ("train", "validation")]


VARIANTS = {
    "pooled": {},
    "flattened with a hidden layer and dropout": {
        "model.pool": "flatten",
        "model.hidden": 5,
        "model.dropout": 0.3,
        "checkpoint.every_steps": 3,
    },
    "with the last block trained": {"model.cut": "mixed1", "model.train_from": "mixed1", "model.train_bn": True},
    "several blocks trained": {"model.cut": "mixed2", "model.train_from": "mixed1"},
    "several blocks pooled": {"model.cut": "mixed2", "model.pool_from": "stem"},
    "averages and deviations": {"model.cut": "mixed1", "model.pool_from": "stem", "model.pool": "avg_std"},
    "frozen and trained blocks pooled": {
        **{"model.cut": "mixed1", "model.pool_from": "stem", "model.pool": "avg_std", "model.train_from": "mixed1"}
    },
    "without augmentation": {"data.augment": "none", "bottleneck.views": 1},
    "random crops": {"data.augment": "inception"},
    "balanced class weights": {"optim.class_weight": "balanced"},
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_cached_training_equals_streaming(folder, tmp_path, changes):
    """As many views as epochs, rows in float32: the same losses, the same parameters."""
    assert train(config_of(folder, **changes), tmp_path / "cached") == 0
    assert train(config_of(folder, **{**changes, "bottleneck.views": 0}), tmp_path / "streamed") == 0
    for quantity in ("loss", "accuracy"):
        np.testing.assert_allclose(
            figures(tmp_path / "cached", quantity), figures(tmp_path / "streamed", quantity), rtol=2e-5, atol=1e-6
        )
    a, b = (jaxcat.load(tmp_path / name, step="latest") for name in ("cached", "streamed"))
    for x, y in zip(jax.tree.leaves(a.trained), jax.tree.leaves(b.trained), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-5)


@pytest.mark.slow
def test_half_precision_rows_are_close(folder, tmp_path):
    assert train(config_of(folder, **{"bottleneck.dtype": "float16"}), tmp_path / "half") == 0
    assert train(config_of(folder), tmp_path / "single") == 0
    np.testing.assert_allclose(figures(tmp_path / "half", "loss"), figures(tmp_path / "single", "loss"), rtol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [0, source.IN_MEMORY], ids=["from maps", "from memory"])
def test_a_batch_holds_its_rows_in_order_and_blank_padding(folder, monkeypatch, in_memory):
    monkeypatch.setattr(source, "IN_MEMORY", in_memory)
    monkeypatch.setattr(rows, "BLOCK_ROWS", 5)
    monkeypatch.setattr(rows, "_open_files", lambda: 4)  # one map at a time
    config = config_of(folder)
    ready = prepared(config)
    numbers, labels = order(24, seed=config.seed, epoch=0), ready.splits["train"].labels
    (of_part,) = ready.parts.rows
    expected = np.zeros((24, *ready.parts.shape), np.float32)
    for record, identity in enumerate(ready._identities[ready._passes[1]]):
        ((block, offset),) = of_part.positions([identity])
        expected[record] = np.load(of_part.folder / f"{of_part._blocks[block]}.npy")[offset]
    if in_memory:
        shutil.rmtree(of_part.folder)  # nothing is read from it any more
    (batch,) = ready.train(0, first=0)  # four steps of 7, 7, 7 and 3 records, each padded for 8 devices
    assert batch["bottleneck"].shape == (4, 8, *ready.parts.shape)
    for step in range(4):
        records = numbers[7 * step : 7 * step + 7]
        np.testing.assert_array_equal(batch["bottleneck"][step, : len(records)], expected[records])
        np.testing.assert_array_equal(batch["label"][step, : len(records)], labels[records])
        np.testing.assert_array_equal(batch["mask"][step], np.arange(8) < len(records))
        assert not np.any(batch["bottleneck"][step, len(records) :])
        assert not np.any(batch["label"][step, len(records) :])


@pytest.mark.slow
def test_fewer_views_than_epochs_come_round_again(folder):
    config = config_of(folder, views=2)
    source = prepared(config)
    first, third = (rows_of(source.train(epoch, first=0), config, epoch) for epoch in (0, 2))
    second = rows_of(source.train(1, first=0), config, 1)
    np.testing.assert_array_equal(first, third)
    assert not np.array_equal(first, second)


@pytest.mark.slow
def test_no_view_is_computed_that_no_epoch_reads(folder):
    config = config_of(folder, views=5, epochs=2)
    few = prepared(config)
    config.epochs = 4  # as a continued run may ask for
    more = opened(config)
    assert (few.to_compute - 12, more.to_compute) == (48, 48)  # two views of 24 images, and 12 to validate
    more.prepare(SILENT)
    for epoch in (0, 1):
        rows = [rows_of(source.train(epoch, first=0), config, epoch) for source in (few, more)]
        np.testing.assert_array_equal(*rows)


@pytest.mark.slow
def test_a_signal_while_rows_are_computed_ends_the_run_with_its_status(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rows, "BLOCK_ROWS", 5)
    config, add, written = config_of(folder, epochs=1), Rows.add, []

    def interrupted(self, wanted, rows):
        add(self, wanted, rows)
        written.append(len(rows))
        if len(written) == 1:  # a second signal would end the process at once
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "add", interrupted)
        assert train(config, tmp_path / "run") == 143
    assert "interrupted while images were prepared" in capsys.readouterr().out
    assert opened(config).to_compute < 60
    assert train(config, tmp_path / "run") == 0


@pytest.mark.slow
def test_a_run_interrupted_within_an_epoch_ends_at_the_same_bits(folder, tmp_path, monkeypatch):
    """With bottlenecks and stacked steps, at a checkpoint within the epoch."""
    settings = {"checkpoint.every_steps": 3, "model.dropout": 0.3, "epochs": 3}  # steps 10 to 12 come stacked
    config = config_of(folder, **settings)
    assert train(config, tmp_path / "whole") == 0

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Interruption", small.InterruptedAt(5))
        assert train(config, tmp_path / "cut") == 143
    (step,) = steps(tmp_path / "cut")[-1:]
    assert 4 < step < 8
    assert train(config, tmp_path / "cut") == 0
    whole, cut = (read_meta(tmp_path / name, 12).digests for name in ("whole", "cut"))
    assert whole == cut
    assert figures(tmp_path / "whole", "loss") == figures(tmp_path / "cut", "loss")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("views", "step", "calls"),
    [(0, "step", 2), (2, "steps", 1)],  # train step and evaluation step; the train step over a whole epoch
    ids=["streaming", "cached"],
)
def test_nothing_is_compiled_after_the_first_epoch(
    folder, tmp_path, monkeypatch, caplog, no_kept_programs, views, step, calls
):
    from jaxcat.training.reporting import Reporter

    seen, epoch = [], Reporter.epoch

    def compiled() -> list[str]:
        return re.findall(r"Compiling (?:jit\()?(\w+)", caplog.text)

    monkeypatch.setattr(Reporter, "epoch", lambda self, entry: (seen.append(compiled()), epoch(self, entry)))
    config = config_of(folder, views=views, epochs=4)
    with jax.log_compiles():
        assert train(config, tmp_path / "run") == 0
    first, second, third, fourth = seen
    assert first.count(step) == calls
    assert not {"step", "steps"} & set(second[len(first) :]), "only the reset of the sums and the like"
    assert second == third == fourth


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "most"), [({}, 4), ({"model.cut": "mixed1", "model.train_from": "mixed1"}, 1)])
def test_only_a_suffix_without_convolutions_gets_its_steps_stacked(folder, changes, most):
    """A convolution's gradient in a compiled loop is slow on a CPU."""
    source = prepared(config_of(folder, **changes))
    assert max(steps_in(batch) for batch in source.train(0, first=0)) == most


def test_views_need_something_frozen(folder):
    config = config_of(folder, **{"model.train_from": "stem"})
    with pytest.raises(ConfigError, match=r"--config\.bottleneck\.views=2.*train_from=stem"):
        validate(config)


@pytest.mark.parametrize("every", [0, 1, 3, 10, 64, 1000])
@pytest.mark.parametrize(("begin", "end", "most"), [(0, 100, 50), (7, 100, 50), (300, 401, 25), (5, 6, 4), (8, 8, 4)])
def test_chunks_reach_the_end_and_cross_no_checkpoint(begin, end, most, every):
    sizes = chunks(begin, end, every=every, most=most)
    assert sum(sizes) == end - begin
    assert set(sizes) <= {1, most}
    if every:
        edges = set(np.cumsum([begin, *sizes]).tolist())
        assert {step for step in range(begin + 1, end + 1) if step % every == 0} <= edges
