"""One training pass: trajectories as one packed sequence, attention over it, log-probs of the policy's tokens. Pure."""
