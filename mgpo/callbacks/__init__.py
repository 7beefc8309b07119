"""Callbacks: what a run shows of itself and leaves behind."""

from mgpo.callbacks.benchmarks import BenchmarkTable
from mgpo.callbacks.crop_swaps import Counterfactuals
from mgpo.callbacks.early_warning import EarlyWarning
from mgpo.callbacks.grounding_gallery import GroundingGallery
from mgpo.callbacks.progress import Progress
from mgpo.callbacks.report_writer import ReportWriter
from mgpo.callbacks.requeue import Requeue
from mgpo.callbacks.rollout_log import RolloutLog
from mgpo.callbacks.throughput import ThroughputMonitor

__all__ = [
    "BenchmarkTable", "Counterfactuals", "EarlyWarning", "GroundingGallery", "Progress", "ReportWriter", "Requeue",
    "RolloutLog", "ThroughputMonitor",
]  # fmt: skip
