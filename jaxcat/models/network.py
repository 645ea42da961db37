"""A network (backbone up to the cut, pool, hidden layers, logits) as pure functions of plain dictionaries of arrays.

Only this file uses NNX's split and merge. Elsewhere, parameters and statistics are nested dictionaries
`{stage: {layer: …}}`. The *boundary* is the first stage that has a trained parameter. The stages before it are the
*prefix* (frozen, deterministic); the boundary and the stages after it are the *suffix*.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from jaxcat.models.backbone import BACKBONES, Top, pooled_blocks
from jaxcat.models.bottleneck import bottleneck_of
from jaxcat.models.chunks import in_chunks
from jaxcat.models.initialization import fresh
from jaxcat.models.layers import Options
from jaxcat.models.modules import blocks_of, head_of
from jaxcat.models.pooling import MAP, PooledPart, check_grid, hidden_layers
from jaxcat.models.preprocessing import Conventions

Tree = dict[str, Any]


def _constant(value: str, _: Any) -> str:
    return value


class _Mode(NamedTuple):
    """How the suffix runs: the arguments of `Network.suffix`, whose defaults are those of evaluation."""

    train: bool = False
    mask: Array | None = None
    key: Array | None = None


class Network:
    """A backbone with a classification head, as functions; holds no arrays.

    Attributes:
        conventions: how images are fed, and the pooling rule.
        stages: names in the order the data flows; includes "pool", which has no parameters.
        pooled: the blocks whose outputs the head sees; some may be in the prefix and others in the suffix.
        boundary: name of the first stage that has a trained parameter.
        parts: the statistics of these blocks, which side by side are the features, in their order.
        features: number of pooled features, which the head sees.
        bottleneck: what the prefix gives to the suffix.
        outputs: 1 for two classes (binary cross-entropy on one logit), else the number of classes.
        dtype: of the computation.
    """

    def __init__(
        self, model: ConfigDict, *, classes: int, image_size: int, conventions: Conventions, top: Top | None = None
    ):
        """Determines the shapes of all layers without running them.

        Args:
            model: the section `model` of a configuration, completed by `completion.complete`.
            classes: number of classes.
            image_size: pixels a side.
            conventions: those of the parameters that will be used.
            top: published classification layers in place of the head that `model` describes.

        Raises:
            ConfigError: `pool_grid` is finer than the map it pools.
        """
        self.config, self.conventions = model, conventions
        self._arguments: dict[str, Any] = {
            "classes": classes,
            "image_size": image_size,
            "conventions": conventions,
            "top": top,
        }
        self.classes, self.outputs = classes, 1 if classes == 2 else classes
        self.dtype = jnp.dtype(model.dtype)
        self.pooled = pooled_blocks(model)
        self._backbone = BACKBONES[model.backbone]
        self._hidden = tuple(hidden_layers(model, top))
        shapes = self._backbone.shapes(model.cut, image_size, width=model.width)
        check_grid(model, shapes[model.cut], image_size=image_size)
        options = Options(
            width=model.width,
            pool_counts_padding=conventions.pool_counts_padding,
            bn_momentum=model.bn_momentum,
            dtype=model.dtype,
        )
        pool, head = head_of(model, shapes, pooled=self.pooled, outputs=self.outputs, top=top)
        self._stages = {**blocks_of(model.backbone, model.cut, options), **head}
        self.parts: tuple[PooledPart, ...] = pool.parts
        self.features: int = pool.features
        self.blocks = self._backbone.up_to(model.cut)
        self.stages = (*self.blocks, "pool", *self._hidden, "logits")  # `head` is sorted by name
        self.boundary = next(stage for stage in self.stages if self.label(stage) != "frozen" and stage != "pool")
        frozen = tuple(stage for stage in self.prefix_stages if stage in self.blocks)
        self.bottleneck = bottleneck_of(self.parts, frozen=frozen, shapes=shapes, only_features=self.prefix_pools)

    def in_dtype(self, dtype: str) -> Network:
        """The same network, which computes in another dtype; all parameters and statistics fit both."""
        model = ConfigDict(self.config)
        model.dtype = dtype
        return Network(model, **self._arguments)

    # which stages are trained -----------------------------------------------------------------------------------------

    def label(self, stage: str) -> str:
        """`head`, `backbone` or `frozen`; the only rule that decides which stages are trained."""
        if self.is_head(stage):
            return "head"
        first, stages = self.config.train_from, self._backbone.stages
        return "frozen" if first == "head" or stages.index(stage) < stages.index(first) else "backbone"

    def is_head(self, stage: str) -> bool:
        """Whether a stage belongs to the head; blocks after the cut do not, they are part of the backbone."""
        return stage not in self._backbone.stages

    def labels(self, tree: Tree) -> Tree:
        """The same tree with a label in place of every leaf."""
        return {stage: jax.tree.map(partial(_constant, self.label(stage)), leaves) for stage, leaves in tree.items()}

    @property
    def prefix_stages(self) -> tuple[str, ...]:
        return self.stages[: self.stages.index(self.boundary)]

    @property
    def suffix_stages(self) -> tuple[str, ...]:
        return self.stages[self.stages.index(self.boundary) :]

    @property
    def prefix_pools(self) -> bool:
        """Whether the prefix ends with "pool", so that a bottleneck is the head's input: all `parts` side by side."""
        return "pool" in self.prefix_stages

    def divide(self, tree: Tree) -> tuple[Tree, Tree]:
        """Parameters or statistics of all stages → those of the prefix, those of the suffix."""
        return {s: tree[s] for s in self.prefix_stages}, {s: tree[s] for s in self.suffix_stages}

    def split(self, params: Tree, stats: Tree) -> tuple[Tree, Tree]:
        """All parameters and statistics → `{"params", "stats"}` of the prefix, the same of the suffix."""
        (frozen, trained), (frozen_stats, trained_stats) = self.divide(params), self.divide(stats)
        return {"params": frozen, "stats": frozen_stats}, {"params": trained, "stats": trained_stats}

    # values -----------------------------------------------------------------------------------------------------------

    def shapes(self) -> tuple[Tree, Tree]:
        """Parameters and statistics as `jax.ShapeDtypeStruct`s."""
        stages = [(name, self._stages[name]) for name in self.stages]
        return {name: stage.params for name, stage in stages}, {name: stage.stats for name, stage in stages}

    def initialize(self, seed: int, *, stages: Collection[str] | None = None) -> tuple[Tree, Tree]:
        """Fresh parameters and statistics of these stages, or of all, float32 numpy; see `initialization.fresh`."""
        wanted = self.stages if stages is None else stages
        params, stats = (fresh({stage: tree[stage] for stage in wanted}, seed=seed) for tree in self.shapes())
        return params, stats

    # computation ------------------------------------------------------------------------------------------------------

    def prefix(self, frozen: Tree, images: Array) -> Array:
        """Images, uint8 (B, H, W, 3) → bottlenecks, float (B, …): what the suffix reads; see `Bottleneck`.

        `frozen` is `{"params": …, "stats": …}` of the prefix stages.
        """
        if not self.prefix_stages:
            return self._prefix(frozen, images, ())[0]
        forward = partial(self._parts_of, frozen, parts=self.bottleneck.parts)
        return in_chunks(lambda images: self.bottleneck.joined(forward(images)), images)

    def prefix_parts(self, frozen: Tree, images: Array, parts: Sequence[PooledPart]) -> tuple[Array, ...]:
        """Images, uint8 (B, H, W, 3) → features (B, width) or map (B, h, w, channels): some parts of the bottleneck.

        Runs the blocks up to the last one that is needed; `frozen` need not have those after it.
        """
        return in_chunks(partial(self._parts_of, frozen, parts=parts), images)

    def _parts_of(self, frozen: Tree, images: Array, *, parts: Sequence[PooledPart]) -> tuple[Array, ...]:
        """What `prefix_parts` gives, of all images at once."""
        blocks = self.blocks[: 1 + max(self.blocks.index(part.block) for part in parts)]
        x, maps = self._prefix(frozen, images, blocks)
        pool = nnx.merge(self._stages["pool"].graph, {}, {})
        return tuple(x if part.statistic == MAP else pool.part(part, maps) for part in parts)

    def _prefix(self, frozen: Tree, images: Array, stages: Sequence[str]) -> tuple[Array, dict[str, Array]]:
        """Images → the output of the last of these blocks, and the outputs of the pooled ones by name.

        Pixels are normalised only here.
        """
        x = self.conventions.preprocessing.normalize(images)
        maps: dict[str, Array] = {}
        for stage in stages:
            x = self._merge(stage, frozen["params"], frozen["stats"])(x)
            if stage in self.pooled:
                maps[stage] = x
        return x, maps

    def suffix(
        self,
        trained: Tree,
        stats: Tree,
        x: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        key: Array | None = None,
    ) -> tuple[Array, Tree]:
        """Bottlenecks → (logits float32 (B, outputs), statistics of the suffix).

        Args:
            train: turns on dropout, which needs `key`. With `model.train_bn`, trained blocks also normalise by the
                rows of this batch whose `mask` (B,) is True, and return updated statistics.
        """
        logits, stats, _ = self._suffix(trained, stats, x, _Mode(train, mask, key))
        return logits, stats

    def logits_and_features(self, trained: Tree, stats: Tree, x: Array) -> tuple[Array, Array]:
        """Bottlenecks → (logits float32 (B, outputs), pooled features, which the head sees, float32 (B, features))."""
        logits, _, features = self._suffix(trained, stats, x, _Mode())
        return logits, features.astype(jnp.float32)

    def _suffix(self, trained: Tree, stats: Tree, x: Array, mode: _Mode) -> tuple[Array, Tree, Array]:
        """What `suffix` gives, and the output of the stage "pool"."""
        x, of_frozen = self.bottleneck.divided(x, self.dtype)
        arrays = {"params": trained, "stats": stats}
        return self._onwards(self.suffix_stages, arrays, x, {}, mode, of_frozen=of_frozen)

    def _onwards(
        self,
        stages: Sequence[str],
        arrays: Tree,
        x: Array,
        maps: Mapping[str, Array],
        mode: _Mode,
        *,
        of_frozen: Array | None = None,
    ) -> tuple[Array, Tree, Array]:
        """The output of the stage before `stages`, which are all from there to the logits → what `_suffix` gives.

        `arrays` is `{"params", "stats"}` of these stages. Of the pooled blocks before them, `maps` has the outputs, or
        `of_frozen` the features.
        """
        stats, maps = dict(arrays["stats"]), dict(maps)
        features = x  # if "pool" comes before them
        for stage in stages:
            if stage in self.blocks:
                x, stats[stage] = self._block(stage, arrays["params"], stats, x, mode)
                if stage in self.pooled:
                    maps[stage] = x
                continue
            module = self._merge(stage, arrays["params"], stats)
            if stage == "pool":
                x = features = module(maps, of_frozen)
            elif stage in self._hidden:
                x = nnx.relu(module(x))
            elif stage == "logits":
                dropout = nnx.Dropout(self.config.dropout)
                x = module(dropout(x, deterministic=not mode.train, rngs=mode.key).astype(jnp.float32))
        return x, stats, features

    def up_to_block(self, arrays: Tree, images: Array, *, block: str) -> tuple[Array, dict[str, Array]]:
        """Images, uint8 (B, H, W, 3) → output (B, h, w, channels) of a block, and of the pooled blocks up to it.

        `arrays` is `{"params", "stats"}` of all stages.
        """
        return self._prefix(arrays, images, self.blocks[: 1 + self.blocks.index(block)])

    def logits_from_block(self, arrays: Tree, x: Array, maps: Mapping[str, Array], *, block: str) -> Array:
        """What `up_to_block` gives → logits float32 (B, outputs).

        As a function of `x`, it includes every path from the block's output to the logits: if the block is pooled, the
        direct one to the head and that through the later blocks.
        """
        maps = {**maps, block: x} if block in self.pooled else maps
        logits, _, _ = self._onwards(self.stages[1 + self.stages.index(block) :], arrays, x, maps, _Mode())
        return logits

    def _block(self, stage: str, trained: Tree, stats: Tree, x: Array, mode: _Mode) -> tuple[Array, Tree]:
        """The output of a block of the suffix, and its statistics.

        With `model.remat`, training keeps none of its inner values: the backward pass computes them again.
        """

        def forward(params: Tree, statistics: Tree, x: Array) -> tuple[Array, Tree]:
            module = self._merge(stage, {stage: params}, {stage: statistics})
            x = module(x, train=mode.train and self.config.train_bn, mask=mode.mask)
            return x, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

        run = jax.checkpoint(forward) if mode.train and self.config.remat else forward
        return run(trained[stage], stats[stage], x)

    def _merge(self, stage: str, params: Tree, stats: Tree) -> Any:
        statistics = jax.tree.map(jnp.asarray, stats[stage])  # BatchNorm assigns to them; NumPy arrays refuse that
        return nnx.merge(self._stages[stage].graph, params[stage], statistics)
