"""What computes bottlenecks: XLA, or the LiteRT interpreter on a converted prefix."""
