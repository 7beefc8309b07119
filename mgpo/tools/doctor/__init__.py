"""Preflight: what a run relies on, tried on a handful of its own questions before its first step."""
