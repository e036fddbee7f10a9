"""ss_pipeline: plain-language analysis requests become reviewed, published drafts."""
