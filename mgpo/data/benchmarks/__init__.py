"""Public benchmarks as sources, each in the columns in which it is published, or drawn as published."""

from mgpo.data.benchmarks.base import Benchmark
from mgpo.data.benchmarks.counting import FSC147, PixmoCount
from mgpo.data.benchmarks.hrbench import HRBench4K, HRBench8K
from mgpo.data.benchmarks.megapixel_mnist import MegapixelMNIST
from mgpo.data.benchmarks.mme_realworld import MMERealWorld, MMERealWorldLite
from mgpo.data.benchmarks.multiple_choice import MultipleChoice
from mgpo.data.benchmarks.pope import POPE
from mgpo.data.benchmarks.vstar import VStar

__all__ = [
    "FSC147", "POPE", "Benchmark", "HRBench4K", "HRBench8K", "MMERealWorld", "MMERealWorldLite", "MegapixelMNIST",
    "MultipleChoice", "PixmoCount", "VStar",
]  # fmt: skip
