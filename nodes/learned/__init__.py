"""What is learned of a model from a full run, and which steps are full by it."""
