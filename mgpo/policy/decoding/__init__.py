"""What sampling in process keeps between tokens: keys, values, prompts that a group shares, CUDA graphs."""
