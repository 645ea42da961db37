"""The machine: command line, console, files, devices, processes, signals, compilation. Knows nothing of networks."""
