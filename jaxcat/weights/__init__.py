"""Weights files in jaxcat: a registry, a verified download, the names of other frameworks, and a strict load."""
