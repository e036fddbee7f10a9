"""The draft stage: from requirement and profile to a structured analysis."""
