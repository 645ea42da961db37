"""jaxcat: transfer learning in JAX.

Use of a trained classifier:

    import jaxcat
    classifier = jaxcat.load("runs/mine")
    probabilities = classifier.predict(["cat.jpg"])  # (1, number of classes), in the order of classifier.classes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcat.inference.classifier import Classifier, load

__all__ = ["Classifier", "load"]


def __getattr__(name: str) -> Any:
    """Imports `Classifier` and `load`, which need JAX, only when they are used; `import jaxcat` alone is fast."""
    if name in __all__:
        from jaxcat.inference import classifier

        return getattr(classifier, name)
    raise AttributeError(f"module 'jaxcat' has no attribute {name!r}")
