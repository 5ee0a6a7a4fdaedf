"""The outside world: data, checkpoints, results, progress. Never called from compiled code."""
