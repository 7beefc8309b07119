"""Callbacks: what a run leaves behind."""

from mgpo.callbacks.benchmarks import BenchmarkTable
from mgpo.callbacks.counterfactuals import Counterfactuals
from mgpo.callbacks.picture import FirstPicture
from mgpo.callbacks.report import ReportWriter

__all__ = ["BenchmarkTable", "Counterfactuals", "FirstPicture", "ReportWriter"]
