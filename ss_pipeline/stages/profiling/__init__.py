"""The profile stage: what the data files are, read in a child process with limits."""
