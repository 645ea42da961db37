"""Using a run: the classifier, published weights as one, and evaluation."""

ENGINE_HELP = "what computes; auto (default): the run's engine if it is ready on this machine or images are many, else xla"
    "what computes; auto (default): the run's engine if that is ready on this machine or there are many images"
)
