"""What the pipeline says about itself: events (and later metrics and traces)."""
