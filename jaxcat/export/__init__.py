"""A trained classifier as a file for other programs: phones, servers, browsers, other languages.

jaxcat.export.export(classifier, "cats.onnx", format="onnx")
"""

from jaxcat.export.exporting import export

__all__ = ["export"]
