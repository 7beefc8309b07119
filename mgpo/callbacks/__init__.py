"""Callbacks: what a run leaves behind."""

from mgpo.callbacks.counterfactuals import Counterfactuals
from mgpo.callbacks.gallery import GroundingGallery
from mgpo.callbacks.report import ReportWriter

__all__ = ["Counterfactuals", "GroundingGallery", "ReportWriter"]
