"""The embedded world: scenes drawn from a seed, questions about them, and the base model that looks at them badly."""
