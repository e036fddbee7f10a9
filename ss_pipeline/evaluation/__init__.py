"""How good the drafts are: the draft benchmark as functions; `python -m ss_pipeline.evaluation` prints the table."""
