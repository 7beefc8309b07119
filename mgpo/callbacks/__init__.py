"""Callbacks: what a run shows of itself and leaves behind."""

from typing import TYPE_CHECKING

from mgpo.utils.on_demand import lazy

if TYPE_CHECKING:
    from mgpo.callbacks.benchmarks import BenchmarkTable as BenchmarkTable
    from mgpo.callbacks.crop_swaps import Counterfactuals as Counterfactuals
    from mgpo.callbacks.early_warning import EarlyWarning as EarlyWarning
    from mgpo.callbacks.grounding_audit import GroundingAudit as GroundingAudit
    from mgpo.callbacks.grounding_gallery import GroundingGallery as GroundingGallery
    from mgpo.callbacks.last_checkpoint import LastCheckpoint as LastCheckpoint
    from mgpo.callbacks.metrics_file import MetricsFile as MetricsFile
    from mgpo.callbacks.progress import Progress as Progress
    from mgpo.callbacks.report_writer import ReportWriter as ReportWriter
    from mgpo.callbacks.requeue import Requeue as Requeue
    from mgpo.callbacks.rollout_log import RolloutLog as RolloutLog
    from mgpo.callbacks.throughput_monitor import ThroughputMonitor as ThroughputMonitor

__all__ = [
    "BenchmarkTable", "Counterfactuals", "EarlyWarning", "GroundingAudit", "GroundingGallery",
    "LastCheckpoint", "MetricsFile", "Progress", "ReportWriter", "Requeue", "RolloutLog", "ThroughputMonitor",
]  # fmt: skip
__getattr__, __dir__ = lazy(
    __name__,
    {
        "benchmarks": ("BenchmarkTable",),
        "crop_swaps": ("Counterfactuals",),
        "early_warning": ("EarlyWarning",),
        "grounding_audit": ("GroundingAudit",),
        "grounding_gallery": ("GroundingGallery",),
        "last_checkpoint": ("LastCheckpoint",),
        "metrics_file": ("MetricsFile",),
        "progress": ("Progress",),
        "report_writer": ("ReportWriter",),
        "requeue": ("Requeue",),
        "rollout_log": ("RolloutLog",),
        "throughput_monitor": ("ThroughputMonitor",),
    },
)
