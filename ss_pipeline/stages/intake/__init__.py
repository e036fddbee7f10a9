"""The submission stage: folders in the inbox become jobs."""
