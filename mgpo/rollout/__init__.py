"""Rollouts: dialogues played with a sampler, for every question a group of trajectories."""

from mgpo.rollout.episodes import Conversations, Sampler, judge, roll_out, seed_of
from mgpo.rollout.in_process import InProcessSampler, Sampling

__all__ = ["Conversations", "InProcessSampler", "Sampler", "Sampling", "judge", "roll_out", "seed_of"]
