"""What a model is told: versioned templates, and the data that is fenced into them."""
