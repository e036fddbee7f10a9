"""The publication stage: from a confirmed draft to an immutable version of the result."""
