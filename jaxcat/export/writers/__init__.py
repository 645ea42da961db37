"""The writers of exported files, one module for each format, with three functions.

- `write(path, network, weights=…)` writes the file or folder.
- `opened(path, network)` gives a function that runs it in its own runtime, uint8 images (N, S, S, 3) → (logits float32
  (N, outputs), probabilities float32 (N, classes)); None if there is no runtime here.
- `describe(path, text, classes=…)` adds the description, which is JSON, to what `write` wrote.
"""
