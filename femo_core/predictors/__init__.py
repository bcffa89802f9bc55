"""One predictor a file."""
