"""Imports TensorFlow without Keras, which jaxcat does not use and which takes 2 of the 5 seconds."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

# With "1", TensorFlow looks for the package tf_keras, and without that package it imports neither Keras nor what Keras
# imports: matplotlib, scikit-learn and scipy.stats. `tf.keras` reads the variable again when it is first used.
_VARIABLE = "TF_USE_LEGACY_KERAS"


def import_tensorflow() -> Any:
    """The module tensorflow. `tf.keras` works all the same: it imports Keras when it is first used."""
    if "tensorflow" in sys.modules or _VARIABLE in os.environ or importlib.util.find_spec("tf_keras"):
        import tensorflow as tf

        return tf
    os.environ[_VARIABLE] = "1"
    try:
        import tensorflow as tf
    finally:
        del os.environ[_VARIABLE]
    return tf
