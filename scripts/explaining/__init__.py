"""The parts of scripts/measure_explanations.py: Grad-CAM in Keras, and the test with random numbers."""
