"""Encoded images → squares of pixels as TensorFlow operations, with the same levels as jaxcat's decoding by Pillow."""
