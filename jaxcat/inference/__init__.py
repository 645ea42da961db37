"""Using a run: the classifier, published weights as one, and evaluation."""

ENGINE_HELP = "what computes; auto (default): the run's engine if it is ready here or images are many, else xla"
