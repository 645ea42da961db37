"""Published numbers made ours: a registry, a verified download, names of other frameworks, and a strict load."""
