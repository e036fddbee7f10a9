"""The Dagster skin: one file per Dagster word. The work itself is in stages/ and claim_run.py."""
