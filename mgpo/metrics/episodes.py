"""Metrics of single episodes. None of them needs a right box."""

import math
from statistics import fmean, geometric_mean

from mgpo.images.boxes import REASONS
from mgpo.metrics.base import EpisodeMean, RecordMetric
from mgpo.metrics.record import Record
from mgpo.metrics.values import subimage_shares


class Accuracy(EpisodeMean):
    """The share of right answers, right / all, in [0, 1]; higher is better.

    By the reward on the final answer alone; whatever training adds to it is left out.
    """

    higher_is_better = True
    plot_upper_bound = 1.0
    field = "right"


class ValidBoxRatio(EpisodeMean):
    """Usable first boxes / episodes in which a box was looked for, in [0, 1]; higher is better.

    Says nothing of where the boxes are; episodes of which no box was asked are left out.
    """

    higher_is_better = True
    plot_upper_bound = 1.0
    field = "valid_box"


class ClippedBoxRatio(EpisodeMean):
    """First boxes that were cut to the picture / usable first boxes, in [0, 1]; lower is better.

    Only where the dialogue's rule clips (`BoxRule.clip`); such boxes count as usable.
    """

    higher_is_better = False
    plot_upper_bound = 1.0
    field = "clipped"


class InvalidReasons(RecordMetric):
    """By reason: first boxes refused for it / episodes in which a box was looked for, in [0, 1]; lower is better.

    Together they are 1 - ValidBoxRatio. Every reason of `mgpo.images.boxes` is there, at 0 where it never occurred.
    """

    higher_is_better = False
    plot_upper_bound = 1.0

    def judge(self, records: list[Record]) -> dict[str, float]:
        """The share of each reason among episodes in which a box was looked for; NaN without any."""
        asked = [record.reason for record in records if record.valid_box is not None]
        return {reason: asked.count(reason) / len(asked) if asked else math.nan for reason in REASONS}


class SubimageAccuracy(EpisodeMean):
    """Sub-images that alone answer the question / usable boxes, in [0, 1]; higher is better.

    Episodes without a usable box are left out, so a policy that names few boxes may still score well.
    """

    higher_is_better = True
    plot_upper_bound = 1.0
    field = "subimage_right"


class SubimageShare(RecordMetric):
    """Sub-images that alone answer the question / all episodes, in [0, 1]; higher is better.

    Episodes without a usable box count as failed; only a dialogue that asks for no box has no value.
    """

    higher_is_better = True
    plot_upper_bound = 1.0

    def judge(self, records: list[Record]) -> float:
        """The share over all records; NaN where none of them was asked for a box."""
        found = subimage_shares(records)
        return fmean(found) if found else math.nan


class ZoomFactor(EpisodeMean):
    """Geometric mean of sqrt(input pixels per original pixel in the last crop / the same in the first view), > 0.

    Times a side that things were seen sharper; 1 is no gain. Higher shows more detail and less around it; episodes
    without a crop are left out.
    """

    field = "zoom"
    mean = staticmethod(geometric_mean)


class CropAreaShare(EpisodeMean):
    """Mean of the last crop's area / the original's, in (0, 1]; neither end is better by itself.

    Episodes without a crop are left out.
    """

    plot_upper_bound = 1.0
    field = "area"


class TurnsPerEpisode(EpisodeMean):
    """Mean number of replies, at least 1; fewer cost less. Nothing is left out."""

    field = "turns"


class CropRate(EpisodeMean):
    """Episodes in which a part was cut out and shown / all, in [0, 1].

    Neither end is better by itself: in free turns, a look that nothing needs is a cost. Nothing is left out.
    """

    plot_upper_bound = 1.0
    field = "cropped"


class FallbackRate(EpisodeMean):
    """Episodes that went on after a box that could not be used / all, in [0, 1]; lower is better.

    A dialogue of one turn has none, however bad its boxes are.
    """

    higher_is_better = False
    plot_upper_bound = 1.0
    field = "fallback"


class RewardMean(EpisodeMean):
    """Mean of what training sees, the reward on the answer and what was added to it; higher is better.

    Its range is that of the reward and its shaping, which may be negative. Nothing is left out.
    """

    higher_is_better = True
    plot_lower_bound = None
    field = "reward"
