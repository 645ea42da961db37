"""jaxcat: transfer learning in JAX.

Training, as `python -m jaxcat.train` does, and use of the classifier:

    import jaxcat
    run = jaxcat.fit("folder", "runs/mine", settings={"data.dir": "images"})
    classifier = run.classifier  # or later: jaxcat.load("runs/mine")
    probabilities = classifier.predict(["cat.jpg"])  # (1, number of classes), in the order of classifier.classes
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcat.api import Run, fit
    from jaxcat.inference.classifier import Classifier, load

__all__ = ["Classifier", "Run", "fit", "load"]

_MODULE_OF = {
    "Classifier": "jaxcat.inference.classifier",
    "load": "jaxcat.inference.classifier",
    "Run": "jaxcat.api",
    "fit": "jaxcat.api",
}
_PACKAGES = ("export", "study")


def __getattr__(name: str) -> Any:
    """Imports what is used only then; `import jaxcat` alone is fast."""
    if name in _PACKAGES:
        return importlib.import_module(f"jaxcat.{name}")
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'jaxcat' has no attribute {name!r}")
