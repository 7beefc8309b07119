"""Rollouts: dialogues played with a sampler, for every question a group of trajectories."""
