"""The search layer: evaluation, runs, search and pruning, each a room of its own."""
