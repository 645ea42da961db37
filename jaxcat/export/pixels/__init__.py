"""Encoded images → squares of pixels as TensorFlow operations, with the same levels as jaxcat's decoding by Pillow.

Its modules import TensorFlow, so `writers.savedmodel` imports them where it writes: nothing else of `export` does.
"""
