"""Using a run: the classifier, published weights as one, and evaluation."""
