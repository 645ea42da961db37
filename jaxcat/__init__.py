"""jaxcat: transfer learning in JAX.

import jaxcat
from jaxcat import predict
classifier = jaxcat.load("runs/mixed7")
probabilities = predict.predict(["cat.jpg"])      # (1, number of classes)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcat.inference.classifier import Classifier, load

__all__ = ["Classifier", "load"]


def __getattr__(name: str) -> Any:
    """Import what stands on JAX only when it is asked for: `import jaxcat` stays instant."""
    if name in __all__:
        from jaxcat.inference import classifier

        return getattr(classifier, name)
    raise AttributeError(f"module 'jaxcat' has no attribute {name!r}")
