"""A provider of language models on loopback, in a process of its own: both wire formats, faults, a counter."""
