"""Published checkpoints: their files, weights, adapters and chat templates, read within limits."""
