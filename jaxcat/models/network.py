"""A network (backbone up to the cut, pool, hidden layers, logits) as pure functions of plain dictionaries of arrays.

Only this file uses NNX's split and merge. Elsewhere, parameters and statistics are nested dictionaries
`{stage: {layer: …}}`. The *boundary* is the first stage that has a trained parameter. The stages before it are the
*prefix* (frozen, deterministic); the boundary and the stages after it are the *suffix*.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from jaxcat.models.backbone import BACKBONES, Top, pooled_blocks
from jaxcat.models.head import Pool
from jaxcat.models.initialization import fresh
from jaxcat.models.layers import Options
from jaxcat.models.pooling import PooledPart, check_grid, hidden_layers
from jaxcat.models.preprocessing import Conventions

# On a CPU the prefix goes through a batch in chunks of about four images of 299 px, whose activations stay in the
# processor's cache: 8 % more images/s at 299 px on 2 cores (docs/benchmarks_log.md). Results may differ by rounding.
CHUNK_PIXELS = 4 * 299 * 299

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
        pooled: the blocks whose outputs the head sees, all of them in the prefix or all in the suffix.
        boundary: name of the first stage that has a trained parameter.
        parts: the statistics of these blocks, which side by side are the features, in their order.
        features: number of pooled features, which the head sees.
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
        self.classes, self.outputs = classes, 1 if classes == 2 else classes
        self.dtype = jnp.dtype(model.dtype)
        self.pooled = pooled_blocks(model)
        self._backbone = BACKBONES[model.backbone]
        self._hidden = tuple(hidden_layers(model, top))
        modules = nnx.eval_shape(lambda: self._modules(image_size, top))
        self.parts: tuple[PooledPart, ...] = modules["pool"].parts
        self.features: int = modules["pool"].features
        self.blocks = self._backbone.up_to(model.cut)
        self.stages = (*self.blocks, "pool", *self._hidden, "logits")  # eval_shape has sorted `modules` by name
        self.boundary = next(stage for stage in self.stages if self.label(stage) != "frozen" and stage != "pool")
        self._graphs: Tree = {}
        self._parameters: Tree = {}
        self._statistics: Tree = {}
        for stage in self.stages:
            # split raises if the module holds anything else, such as random state
            graph, *states = nnx.split(modules[stage], nnx.Param, nnx.BatchStat)
            self._graphs[stage] = graph
            self._parameters[stage], self._statistics[stage] = map(nnx.to_pure_dict, states)

    def _modules(self, image_size: int, top: Top | None) -> dict[str, Any]:
        model = self.config
        options = Options(
            width=model.width,
            pool_counts_padding=self.conventions.pool_counts_padding,
            bn_momentum=model.bn_momentum,
            dtype=model.dtype,
        )
        modules = self._backbone.build(model.cut, options)
        shapes = self._backbone.shapes(model.cut, image_size, width=model.width)
        check_grid(model, shapes[model.cut], image_size=image_size)
        kind = top.pool if top else model.pool
        modules["pool"] = Pool(kind, model.pool_grid, {block: shapes[block] for block in self.pooled})
        features = modules["pool"].features
        rngs = nnx.Rngs(0)
        for name, width in hidden_layers(model, top).items():
            modules[name] = nnx.Linear(features, width, dtype=self.dtype, rngs=rngs)
            features = width
        modules["logits"] = nnx.Linear(features, self.outputs, dtype=jnp.float32, rngs=rngs)
        return modules

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
        return self._parameters, self._statistics

    def initialize(self, seed: int, *, stages: Collection[str] | None = None) -> tuple[Tree, Tree]:
        """Fresh parameters and statistics of these stages, or of all, float32 numpy; see `initialization.fresh`."""
        wanted = self.stages if stages is None else stages
        params, stats = (fresh({stage: tree[stage] for stage in wanted}, seed=seed) for tree in self.shapes())
        return params, stats

    # computation ------------------------------------------------------------------------------------------------------

    def prefix(self, frozen: Tree, images: Array) -> Array:
        """Images, uint8 (B, H, W, 3) → bottlenecks, the float input of the boundary stage.

        `frozen` is `{"params": …, "stats": …}` of the prefix stages. Pixels are normalised only here.
        """

        def forward(images: Array) -> Array:
            x, maps = self._prefix(frozen, images, self.prefix_stages)
            return self._merge("pool", frozen["params"], frozen["stats"])(maps) if self.prefix_pools else x

        return self._in_chunks(forward, images)

    def pooled_parts(self, frozen: Tree, images: Array, parts: Sequence[PooledPart]) -> tuple[Array, ...]:
        """Images, uint8 (B, H, W, 3) → features (B, width) of each of `parts`, if the prefix ends with "pool".

        Runs the blocks up to the last one that is needed; `frozen` need not have those after it.
        """
        blocks = self.blocks[: 1 + max(self.blocks.index(part.block) for part in parts)]

        def forward(images: Array) -> tuple[Array, ...]:
            _, maps = self._prefix(frozen, images, blocks)
            pool = self._merge("pool", frozen["params"], frozen["stats"])
            return tuple(pool.part(part, maps) for part in parts)

        return self._in_chunks(forward, images)

    def _prefix(self, frozen: Tree, images: Array, stages: Sequence[str]) -> tuple[Array, dict[str, Array]]:
        """Images → the output of the last block in `stages`, and the outputs of the pooled ones by name."""
        x = self.conventions.preprocessing.normalize(images)
        maps: dict[str, Array] = {}
        for stage in stages:
            if stage == "pool":
                continue
            x = self._merge(stage, frozen["params"], frozen["stats"])(x)
            if stage in self.pooled:
                maps[stage] = x
        return x, maps

    def _in_chunks(self, forward: Callable[[Array], Any], images: Array) -> Any:
        """What `forward` gives for all images; see CHUNK_PIXELS."""
        count, chunk = len(images), _chunk(images.shape)
        if chunk == count or not self.prefix_stages:
            return forward(images)
        outputs = jax.lax.map(forward, images.reshape(count // chunk, chunk, *images.shape[1:]))
        return jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), outputs)

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
        stats, maps = dict(stats), {}
        features = x  # if the prefix ends with "pool"
        for stage in self.suffix_stages:
            if stage in self.blocks:
                x, stats[stage] = self._block(stage, trained, stats, x, mode)
                if stage in self.pooled:
                    maps[stage] = x
                continue
            module = self._merge(stage, trained, stats)
            if stage == "pool":
                x = features = module(maps)
            elif stage in self._hidden:
                x = nnx.relu(module(x))
            elif stage == "logits":
                dropout = nnx.Dropout(self.config.dropout)
                x = module(dropout(x, deterministic=not mode.train, rngs=mode.key).astype(jnp.float32))
        return x, stats, features

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
        return nnx.merge(self._graphs[stage], params[stage], statistics)


def _chunk(shape: tuple[int, ...]) -> int:
    """Number of images of a batch (B, H, W, 3) that go through the prefix at once; a divisor of B.

    It is B on accelerators, which are fast with large batches; if several devices share the batch; and if all
    divisors are far below the wanted number, because very small chunks are slow.
    """
    count, height, width = shape[:3]
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return count
    most = max(1, CHUNK_PIXELS // (height * width))
    chunk = max(divisor for divisor in range(1, count + 1) if count % divisor == 0 and divisor <= most)
    return chunk if 2 * chunk >= most else count
