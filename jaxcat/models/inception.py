"""Inception-v3 as an ordered table of named blocks. Imports no framework.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (arXiv:1512.00567), as implemented in
keras/src/applications/inception_v3.py. Within a block, convolutions stand in the order Keras creates them
(`conv2d_1` … `conv2d_94`); weights/keras_names.py holds that order as a table.

Sizes in comments are for an input of 299×299; any height and width of at least 75 pixels work.
"""

from __future__ import annotations

from jaxcat.models.wiring import AveragePool, Concat, Conv, MaxPool, Table

_STEM: Table = {
    "conv1": Conv("input", 32, (3, 3), stride=2, padding="VALID"),  # 149 × 149 × 32
    "conv2": Conv("conv1", 32, (3, 3), padding="VALID"),  # 147 × 147 × 32
    "conv3": Conv("conv2", 64, (3, 3)),  # 147 × 147 × 64
    "pool": MaxPool("conv3"),  # 73 × 73 × 64
    "conv4": Conv("pool", 80, padding="VALID"),  # 73 × 73 × 80
    "conv5": Conv("conv4", 192, (3, 3), padding="VALID"),  # 71 × 71 × 192
    "output": MaxPool("conv5"),  # 35 × 35 × 192
}


def _mixed_a(*, pool: int) -> Table:
    """mixed0, mixed1, mixed2: 1×1, 5×5, double 3×3 and pooling side by side; (35, 35, ·) → (35, 35, 256|288)."""
    return {
        "branch1x1": Conv("input", 64),
        "branch5x5_1": Conv("input", 48),
        "branch5x5_2": Conv("branch5x5_1", 64, (5, 5)),
        "branch3x3dbl_1": Conv("input", 64),
        "branch3x3dbl_2": Conv("branch3x3dbl_1", 96, (3, 3)),
        "branch3x3dbl_3": Conv("branch3x3dbl_2", 96, (3, 3)),
        "pool": AveragePool("input"),
        "branch_pool": Conv("pool", pool),
        "output": Concat(("branch1x1", "branch5x5_2", "branch3x3dbl_3", "branch_pool")),
    }


_MIXED_B: Table = {  # mixed3: halves the grid; (35, 35, 288) → (17, 17, 768)
    "branch3x3": Conv("input", 384, (3, 3), stride=2, padding="VALID"),
    "branch3x3dbl_1": Conv("input", 64),
    "branch3x3dbl_2": Conv("branch3x3dbl_1", 96, (3, 3)),
    "branch3x3dbl_3": Conv("branch3x3dbl_2", 96, (3, 3), stride=2, padding="VALID"),
    "pool": MaxPool("input"),
    "output": Concat(("branch3x3", "branch3x3dbl_3", "pool")),
}


def _mixed_c(*, inner: int) -> Table:
    """mixed4 … mixed7: 7×7 convolutions factorised into 1×7 and 7×1; (17, 17, 768) → (17, 17, 768)."""
    return {
        "branch1x1": Conv("input", 192),
        "branch7x7_1": Conv("input", inner),
        "branch7x7_2": Conv("branch7x7_1", inner, (1, 7)),
        "branch7x7_3": Conv("branch7x7_2", 192, (7, 1)),
        "branch7x7dbl_1": Conv("input", inner),
        "branch7x7dbl_2": Conv("branch7x7dbl_1", inner, (7, 1)),
        "branch7x7dbl_3": Conv("branch7x7dbl_2", inner, (1, 7)),
        "branch7x7dbl_4": Conv("branch7x7dbl_3", inner, (7, 1)),
        "branch7x7dbl_5": Conv("branch7x7dbl_4", 192, (1, 7)),
        "pool": AveragePool("input"),
        "branch_pool": Conv("pool", 192),
        "output": Concat(("branch1x1", "branch7x7_3", "branch7x7dbl_5", "branch_pool")),
    }


_MIXED_D: Table = {  # mixed8: halves the grid; (17, 17, 768) → (8, 8, 1280)
    "branch3x3_1": Conv("input", 192),
    "branch3x3_2": Conv("branch3x3_1", 320, (3, 3), stride=2, padding="VALID"),
    "branch7x7x3_1": Conv("input", 192),
    "branch7x7x3_2": Conv("branch7x7x3_1", 192, (1, 7)),
    "branch7x7x3_3": Conv("branch7x7x3_2", 192, (7, 1)),
    "branch7x7x3_4": Conv("branch7x7x3_3", 192, (3, 3), stride=2, padding="VALID"),
    "pool": MaxPool("input"),
    "output": Concat(("branch3x3_2", "branch7x7x3_4", "pool")),
}
_MIXED_E: Table = {  # mixed9, mixed10: 3×3 split into parallel 1×3 and 3×1; (8, 8, ·) → (8, 8, 2048)
    "branch1x1": Conv("input", 320),
    "branch3x3": Conv("input", 384),
    "branch3x3_1x3": Conv("branch3x3", 384, (1, 3)),
    "branch3x3_3x1": Conv("branch3x3", 384, (3, 1)),
    "branch3x3dbl_1": Conv("input", 448),
    "branch3x3dbl_2": Conv("branch3x3dbl_1", 384, (3, 3)),
    "branch3x3dbl_1x3": Conv("branch3x3dbl_2", 384, (1, 3)),
    "branch3x3dbl_3x1": Conv("branch3x3dbl_2", 384, (3, 1)),
    "pool": AveragePool("input"),
    "branch_pool": Conv("pool", 192),
    "output": Concat(
        ("branch1x1", "branch3x3_1x3", "branch3x3_3x1", "branch3x3dbl_1x3", "branch3x3dbl_3x1", "branch_pool")
    ),
}

# Name → layers, in the order the data flows. The names are Keras's, and the values of `model.cut` and
# `model.train_from`. In Keras, `mixedN` is the concatenation at the end of the block. The numbers of channels are those
# of table 1 in the paper, as Keras has them.
STAGES: dict[str, Table] = {
    "stem": _STEM,
    "mixed0": _mixed_a(pool=32),
    "mixed1": _mixed_a(pool=64),
    "mixed2": _mixed_a(pool=64),
    "mixed3": _MIXED_B,
    "mixed4": _mixed_c(inner=128),
    "mixed5": _mixed_c(inner=160),
    "mixed6": _mixed_c(inner=160),
    "mixed7": _mixed_c(inner=192),
    "mixed8": _MIXED_D,
    "mixed9": _MIXED_E,
    "mixed10": _MIXED_E,
}
LEAST_IMAGE_SIZE = 75  # pixels; the last convolution without padding needs so many. Keras refuses less too
