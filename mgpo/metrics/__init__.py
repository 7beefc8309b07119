"""Metrics of where a policy looks and what it answers, none of which needs a right box.

`values` says what one episode or group is worth; the classes are torchmetrics over `Record`s.
"""

from mgpo.metrics.base import RecordMetric, RowMetric
from mgpo.metrics.calibration import VoteCalibration
from mgpo.metrics.effects import CROP, NO_TOOLS, CropGain, CropHarm
from mgpo.metrics.episodes import (
    Accuracy,
    ClippedBoxRatio,
    CropAreaShare,
    CropRate,
    FallbackRate,
    InvalidReasons,
    RewardMean,
    SubimageAccuracy,
    SubimageShare,
    TurnsPerEpisode,
    ValidBoxRatio,
    ZoomFactor,
)
from mgpo.metrics.grouped import ConstantRewardGroups, GroupAgreement, GroupSpread, MajorityAtK, PassAtK
from mgpo.metrics.score import Score

__all__ = [
    "CROP",
    "NO_TOOLS",
    "Accuracy",
    "ClippedBoxRatio",
    "ConstantRewardGroups",
    "CropAreaShare",
    "CropGain",
    "CropHarm",
    "CropRate",
    "FallbackRate",
    "GroupAgreement",
    "GroupSpread",
    "InvalidReasons",
    "MajorityAtK",
    "PassAtK",
    "RecordMetric",
    "RewardMean",
    "RowMetric",
    "Score",
    "SubimageAccuracy",
    "SubimageShare",
    "TurnsPerEpisode",
    "ValidBoxRatio",
    "VoteCalibration",
    "ZoomFactor",
]  # fmt: skip
