"""What a request leaves to the backbone: the size of images, the last block, and the blocks that the head sees.

A recipe does not know which backbone the command line names. So it may ask for the usual size (`data.image_size=0`),
the usual or an early last block (`model.cut=""` or `fast`), and a choice of pooled blocks (`model.pool_from=auto`).
This module imports no framework, because commands check settings before they import JAX.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxcat.models.backbone import AUTO, BACKBONES, FAST, Backbone


def complete(config: ConfigDict) -> None:
    """Replaces the values that stand for values of the backbone, if that needs no data; changes `config`.

    Called before a config is stored or compared, so that a run keeps its values if the table changes later. Only a
    choice of blocks stays open: `chooses_blocks`.
    """
    model, backbone = config.model, BACKBONES[config.model.backbone]
    model.weights = model.weights or backbone.weights
    if not config.data.image_size:
        config.data.image_size = backbone.fast_image_size if model.cut == FAST else backbone.image_size
    if model.cut == FAST:
        model.cut = backbone.fast_cut
    if chooses_blocks(model):
        return
    model.cut = model.cut or backbone.stages[-1]
    if model.pool_from == AUTO:
        blocks = backbone.up_to(model.cut) if model.cut in backbone.stages else ()
        set_blocks(model, blocks[1:] or (model.cut,))


def chooses_blocks(model: ConfigDict) -> bool:
    """Whether the pooled blocks are to be chosen from train: `model.pool_from=auto` without a `model.cut`."""
    return model.pool_from == AUTO and not model.cut


def widest(config: ConfigDict) -> ConfigDict:
    """A completed copy of `config`, in which the head sees all blocks among which the request lets jaxcat choose."""
    config = config.copy_and_resolve_references()
    complete(config)
    if chooses_blocks(config.model):
        set_blocks(config.model, candidates(BACKBONES[config.model.backbone])[0])
    return config


def set_blocks(model: ConfigDict, blocks: tuple[str, ...]) -> None:
    """Sets both ends of the range of blocks that the head sees; one block is written `pool_from=cut`."""
    model.cut = blocks[-1]
    model.pool_from = "cut" if len(blocks) == 1 else blocks[0]


def candidates(backbone: Backbone) -> tuple[tuple[str, ...], ...]:
    """The ranges of blocks among which `model.pool_from=auto` chooses, the widest first; the stem is in none.

    They are: all blocks; the first three quarters; from the first quarter, or the first third, to the end of these; the
    last quarter; the last block. For Inception-v3: mixed0 … mixed10, mixed0 … mixed7, mixed3 … mixed7, mixed4 … mixed7,
    mixed8 … mixed10 and mixed10.
    """
    blocks = backbone.stages[1:]
    count = len(blocks)
    quarter, third, three_quarters = round(count / 4), round(count / 3), round(3 * count / 4)
    ends = (
        (0, count),
        (0, three_quarters),
        (quarter, three_quarters),
        (third, three_quarters),
        (three_quarters, count),
        (count - 1, count),
    )
    return tuple(dict.fromkeys(blocks[start:end] for start, end in ends))
