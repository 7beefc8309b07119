"""Checkpoints of runs: in one file or in shards, how far they had come, and which one a configuration goes on from."""
