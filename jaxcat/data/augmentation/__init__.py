"""Random changes of training images: which there are, what is drawn for each view, and two ways to compute it."""
