"""Imported by the process that `processes` forks from: what its children would import on first use."""

from jaxcat.data.augmentation.host import tensorflow

tensorflow()
