"""A block of a backbone, in Flax NNX: it computes the layers of a table of wiring.py."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxcat.models.layers import ConvBN, NoKeys, Options, average_pool, max_pool
from jaxcat.models.wiring import INPUT, OUTPUT, AveragePool, Concat, Conv, MaxPool, Table, channels_of


class Block(nnx.Module):
    """The layers of `table`; (B, H, W, inputs) → (B, H', W', features). Convolutions are attributes, by their names."""

    def __init__(self, table: Table, inputs: int, *, batch_norm: bool, o: Options):
        self.layers, self.batch_norm, self.o = tuple(table.items()), batch_norm, o
        channels = channels_of(table, inputs, width=o.width)
        self.features = channels[OUTPUT]
        for name, layer in table.items():
            if isinstance(layer, Conv):
                setattr(self, name, self._convolution(layer, channels[layer.input]))

    def _convolution(self, layer: Conv, inputs: int) -> nnx.Module:
        if self.batch_norm:
            return ConvBN(inputs, layer.channels, layer.kernel, stride=layer.stride, padding=layer.padding, o=self.o)
        return nnx.Conv(
            inputs,
            self.o.channels(layer.channels),
            layer.kernel,
            strides=layer.stride,
            padding=layer.padding,
            kernel_init=nnx.initializers.zeros,
            dtype=jnp.dtype(self.o.dtype),
            rngs=NoKeys(),
        )

    def __call__(self, x: Array, *, train: bool = False, mask: Array | None = None) -> Array:
        """If `train`, batch normalisation uses the rows of this batch whose `mask` (B,) is True; see `ConvBN`."""
        values = {INPUT: x}
        for name, layer in self.layers:
            match layer:
                case Conv() if self.batch_norm:
                    x = getattr(self, name)(values[layer.input], train=train, mask=mask)
                case Conv():
                    x = nnx.relu(getattr(self, name)(values[layer.input]))
                case MaxPool():
                    x = max_pool(values[layer.input], layer.window, layer.stride)
                case AveragePool():
                    x = average_pool(values[layer.input], o=self.o)
                case Concat():
                    x = jnp.concatenate([values[each] for each in layer.inputs], axis=-1)
            values[name] = x
        return values[OUTPUT]
