"""Command line, console, files, devices, processes, signals, compilation; independent of networks and data."""
