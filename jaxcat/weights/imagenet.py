"""The 1000 classes of ImageNet, in the order of the published networks' outputs.

imagenet_classes.tsv holds a WordNet id and its lemmas per line: timm/data/_info/imagenet_synsets.txt joined with
imagenet_synset_to_lemma.txt of timm 1.0.31 (Apache-2.0). Keras and torchvision use the same order, by id.
"""

from __future__ import annotations

import functools
from collections import Counter
from importlib.resources import files


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """Names such as `goldfish, Carassius auratus`; the two classes called `crane` have their WordNet id added."""
    text = (files("jaxcat.weights") / "imagenet_classes.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines()]
    count = Counter(name for _, name in rows)
    return tuple(name if count[name] == 1 else f"{name} ({synset})" for synset, name in rows)
