"""What is asked of logits: losses and metrics. Arrays in, arrays out."""
