"""Experiments: which runs a protocol consists of, their commands and folders, and the tables made from them.

Nothing here imports torch, so that an entry of scripts/ starts in a fraction of a second.
"""
