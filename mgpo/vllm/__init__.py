"""Rollouts by vLLM (arXiv 2309.06180) on a copy of the policy's weights."""

from mgpo.vllm.remote import ServedVLLMSampler
from mgpo.vllm.sampler import VLLMSampler, where_installed

__all__ = ["ServedVLLMSampler", "VLLMSampler", "where_installed"]
