"""Others' ways to skip the network: predictors, rules of choosing full steps, whole caches."""
