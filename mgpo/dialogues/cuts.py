"""What is cut out for a box that a reply names: the box itself, or whatever a view can show."""

from abc import abstractmethod
from collections.abc import Sequence

from mgpo.dialogues.base import find_box
from mgpo.errors import UserError
from mgpo.images.boxes import BoxRule, Reason
from mgpo.images.views import Box, Size, View, VisionResolution
from mgpo.types import Trajectory
from mgpo.utils.interface import Interface, implementing


class Cut(Interface):
    """From a usable box to the view that is shown: (the picture it was named in, box in its pixels, resolution).

    `View.crop` clips to that picture, turns by quarter turns, and takes the size at which crops are seen from
    `resolution.crop`. A class or a plain function, as `dialogue.cut`.

    Example:
        Tall parts lie down. In my_cuts.py::

            from mgpo.images import Box, View, VisionResolution


            def lying(view: View, box: Box, resolution: VisionResolution) -> View:
                part = view.crop(box, resolution.crop)
                tall = part.extent[1] > part.extent[0]
                return view.crop(box, resolution.crop, turn=1) if tall else part

        and on the command line ``--model.dialogue.cut my_cuts.lying``.
    """

    @abstractmethod
    def __call__(self, view: View, box: Box, resolution: VisionResolution) -> View: ...


class PlainCut:
    """The box itself, as published."""

    def __call__(self, view: View, box: Box, resolution: VisionResolution) -> View:
        return view.crop(box, resolution.crop)


class WithMargin:
    """The box and what surrounds it, as far as the picture goes.

    Args:
        share: Of the box's sides, added at each of its ends.
    """

    def __init__(self, share: float = 0.25) -> None:
        if not 0 <= share < float("inf"):
            raise UserError(f"dialogue.cut.share is {share}; a margin is a share of the box from 0 on")
        self.share = share

    def __call__(self, view: View, box: Box, resolution: VisionResolution) -> View:
        x1, y1, x2, y2 = box
        dx, dy = self.share * (x2 - x1), self.share * (y2 - y1)
        return view.crop((x1 - dx, y1 - dy, x2 + dx, y2 + dy), resolution.crop)


class Turned:
    """The box turned clockwise, as for writing that runs up a wall. Boxes named in it map back exactly.

    Args:
        quarters: Of a turn.
    """

    def __init__(self, quarters: int = 1) -> None:
        self.quarters = quarters

    def __call__(self, view: View, box: Box, resolution: VisionResolution) -> View:
        return view.crop(box, resolution.crop, turn=self.quarters)


class Enlarged:
    """The box as if the original were larger: a small part fills more of the pixels that a crop may have.

    No detail is gained; towers that look at patches see small writing in more of them.

    Args:
        scale: Of its sides.
    """

    def __init__(self, scale: float = 2.0) -> None:
        if not 1 <= scale < float("inf"):
            raise UserError(f"dialogue.cut.scale is {scale}; a part is enlarged by a factor from 1 on")
        self.scale = scale

    def __call__(self, view: View, box: Box, resolution: VisionResolution) -> View:
        def resize(size: Size) -> Size:
            return resolution.crop((round(self.scale * size[0]), round(self.scale * size[1])))

        return view.crop(box, resize)


PLAIN = PlainCut()


def look(
    trajectory: Trajectory, views: Sequence[View], resolution: VisionResolution, rule: BoxRule, cut: Cut | None
) -> tuple[View | None, Reason | None]:
    """What the last reply asks to see: its box in one of `views` is noted in the turn, and cut from the original.

    Returns:
        The view and None, or None and why nothing can be cut out.

    Raises:
        UserError: Where a cut of one's own gives no view.
    """
    turn = trajectory.turns[-1]
    turn.seen, turn.parsed_box = find_box(turn.said, views, resolution.frame, rule)
    if turn.seen is None or turn.parsed_box.box is None:
        turn.action = "look refused"
        return None, turn.parsed_box.reason
    turn.action = "look"
    view = (cut or PLAIN)(turn.seen, turn.parsed_box.box, resolution)
    if not isinstance(view, View):
        name = getattr(cut, "__name__", type(cut).__name__)
        raise UserError(f"dialogue.cut: {name} gives {view!r:.60} for a usable box; it should return a View")
    return view, None


def implementing_cut(cut: Cut | None) -> Cut | None:
    """The cut, where one is given. Raises UserError for what can't be called as cuts are."""
    return None if cut is None else implementing(Cut, cut, "dialogue.cut")
