"""What is known of a model, and what a run is to do by it."""
