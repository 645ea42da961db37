"""Mixing of rows inside the step: mixup and CutMix of images, and mixup of bottlenecks.

Each row is mixed with a partner of the same batch, and its loss is the mean of the losses of both labels, weighted by
their shares. Cross-entropy is linear in the label, so this is the loss of a label that is a distribution, also with one
logit; class weights and label smoothing act on each of the two labels. A new kind is one function and one row of
`MIXES`, whose functions import the framework when they are called, so that commands check settings without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# Folded into the step's key, so that mixing draws independently of dropout. Parts of a batch have another constant.
OF_MIXING = 1

Array = Any  # of JAX


class Mix(NamedTuple):
    """One row of the table.

    Attributes:
        meaning: one line for `--help`.
        mixes: name of the array in a batch that is mixed; "" if none is.
        rows: (rows (B, …), their partners, share of the row itself float32 (B,), keys (B,)) → (mixed rows of the same
            dtype, shares that the rows' own labels get float32 (B,)); None if nothing is mixed.
    """

    meaning: str
    mixes: str
    rows: Callable[[Array, Array, Array, Array], tuple[Array, Array]] | None


def blended(rows: Array, partners: Array, share: Array, keys: Array) -> tuple[Array, Array]:
    """Mixup, arXiv:1710.09412: share × row + (1 - share) × partner; whole numbers are rounded."""
    import jax.numpy as jnp

    weight = share.reshape(-1, *(1,) * (rows.ndim - 1))
    mixed = weight * rows.astype(jnp.float32) + (1 - weight) * partners.astype(jnp.float32)
    if jnp.issubdtype(rows.dtype, jnp.integer):
        mixed = jnp.round(mixed)
    return mixed.astype(rows.dtype), share


def pasted(rows: Array, partners: Array, share: Array, keys: Array) -> tuple[Array, Array]:
    """CutMix, arXiv:1905.04899: a box of the partner in the row (B, H, W, C), of the row's shape.

    The box covers 1 - share of the image. Its centre is anywhere in the image, whose border cuts it off; the labels get
    the shares of the visible pixels.
    """
    import jax
    import jax.numpy as jnp

    height, width = rows.shape[1:3]
    centre = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
    half = jnp.sqrt(1 - share) / 2

    def within(side: int, centre: Array) -> Array:
        low, high = (jnp.round(side * jnp.clip(centre + sign * half, 0, 1)) for sign in (-1, 1))
        places = jnp.arange(side)
        return (places >= low[:, None]) & (places < high[:, None])  # (B, side)

    box = within(height, centre[:, 0])[:, :, None] & within(width, centre[:, 1])[:, None, :]
    return jnp.where(box[..., None], partners, rows), 1 - jnp.mean(box, axis=(1, 2), dtype=jnp.float32)


MIXES: dict[str, Mix] = {
    "none": Mix("every row as it is", "", None),
    "mixup": Mix("a mean of two images, arXiv:1710.09412", "image", blended),
    "cutmix": Mix("a box of another image in each, arXiv:1905.04899", "image", pasted),
    "mixup_bottlenecks": Mix("a mean of two bottlenecks, with bottleneck.views", "bottleneck", blended),
}


def mixed(batch: Mapping[str, Array], mix: Mix, *, alpha: float, key: Array) -> dict[str, Array]:
    """The batch with its rows mixed, and two more arrays: `other_label` int32 (B,) and `share` float32 (B,).

    `share`, at least 1/2 with mixup, is that of the row's own label. The random numbers of a row depend only on the key
    and on how many rows of the batch come before it, so neither padding nor the number of devices matters.

    Args:
        batch: with `label`, `mask` and the array that `mix` mixes.
        mix: a row of `MIXES` that mixes.
        alpha: both parameters of the beta distribution of the share.
        key: of the step.
    """
    import jax
    import jax.numpy as jnp

    mask = batch["mask"]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, OF_MIXING), jnp.cumsum(mask) - 1)
    of_share, of_partner, of_rows = jax.vmap(lambda key: jax.random.split(key, 3), out_axes=1)(keys)
    share = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(of_share)
    partner = partners_of(jax.vmap(jax.random.uniform)(of_partner), mask)
    assert mix.rows is not None, "nothing to mix"
    rows, share = mix.rows(batch[mix.mixes], batch[mix.mixes][partner], jnp.maximum(share, 1 - share), of_rows)
    return {**batch, mix.mixes: rows, "other_label": batch["label"][partner], "share": share}


def partners_of(draws: Array, mask: Array) -> Array:
    """The partner of every row, int32 (B,): the next one in a random order of the rows whose mask is True.

    So no row is its own partner unless it is the only one, and each is the partner of one row; a masked row is its own.

    Args:
        draws: the order, uniform in [0, 1), float32 (B,).
        mask: bool (B,).
    """
    import jax.numpy as jnp

    order, place = jnp.argsort(jnp.where(mask, draws, 2.0)), jnp.arange(len(mask))
    count = jnp.sum(mask)
    after = jnp.where(place < count, order[(place + 1) % jnp.maximum(count, 1)], order)
    return jnp.zeros_like(order).at[order].set(after)
