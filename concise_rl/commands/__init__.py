"""What the command line calls: Hydra's configuration, and one file for each long command.

Here: reading settings, refusing bad ones before a model loads, wiring. Not here: anything that computes a result.
"""
