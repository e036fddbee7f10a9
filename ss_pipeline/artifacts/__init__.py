"""Where a job's files live: inputs, profiles, drafts, published reports."""
