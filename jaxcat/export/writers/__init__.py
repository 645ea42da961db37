"""The writers of exported files, one module for each format.

Each module has three functions. `write(path, network, weights=…)` writes the file or folder. `describe(path, text, classes=…)`
adds a description, which is JSON. `opened(path, network)` gives a function that runs the file in its own runtime,
uint8 images (N, S, S, 3) → (logits float32 (N, outputs), probabilities float32 (N, classes)); None if there is no
runtime here.
"""
