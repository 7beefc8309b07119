"""Images: views and their coordinates, boxes in what a model wrote, pixels that are decoded where they are needed."""

from mgpo.images.boxes import BoxRule, ParsedBox, parse_box
from mgpo.images.decoding import BadImage, FilePicture, Picture
from mgpo.images.views import Box, Frame, Original, PartialImage, View, VisionResolution

__all__ = [
    "BadImage", "Box", "BoxRule", "FilePicture", "Frame", "Original", "ParsedBox", "PartialImage", "Picture",
    "View", "VisionResolution", "parse_box",
]  # fmt: skip
