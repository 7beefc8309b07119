"""What the model is told, turn by turn, as text: pictures are named by their size and tokens."""

from collections.abc import Sequence
from itertools import groupby

from mgpo.dialogues import Dialogue
from mgpo.dialogues.asked import begins_anew, next_of, opening_of
from mgpo.gallery.html_page import shorten
from mgpo.images.views import Frame, Size, View
from mgpo.policy.base import Policy
from mgpo.tools.overview.facts import Fact, unopened
from mgpo.types import Pixels, Reply, Turn
from mgpo.utils.terminal_tables import printable

MOST = 8  # turns
TEXT = 20_000  # characters of a piece
BOX = '```json\n[{{"bbox_2d": [{}], "label": "it"}}]\n```'


def conversation(policy: Policy, dialogue: Dialogue, fact: Fact) -> str:
    """A conversation about a question whose pictures' sizes are known; replies name the middle of the first."""
    assert fact.sizes
    trajectory = unopened(fact.question, [size for size, _ in fact.sizes])
    shown: list[Size] = []

    def blank(view: View) -> Pixels:
        shown.append(view.size)
        return policy.blank(view.size)

    prompt = policy.chat.open(opening_of(dialogue, trajectory, policy.resolution), blank)
    box = middle(trajectory.views[0].size, policy.resolution.frame)
    said = [words(policy, prompt.ids, shown)]
    reply = Reply(tuple(policy.chat.encode_text(box)), (), "marker")
    while len(trajectory.turns) < MOST:
        trajectory.turns.append(Turn(prompt, reply, box))
        if (messages := next_of(dialogue, trajectory, policy.resolution)) is None:
            break
        shown.clear()
        anew = begins_anew(messages)
        prompt = policy.chat.open(messages, blank) if anew else policy.chat.follow(messages, reply, blank)
        said.append(words(policy, prompt.ids, shown))
    return f"\n[say, the model names the middle:]\n{box}\n[and is told:]\n".join(said) + "\n[the model answers]\n"


def middle(size: Size, frame: Frame) -> str:
    """A reply that names the middle of a picture of this size."""
    width, height = size
    box = frame.from_pixels((width // 4, height // 4, width - width // 4, height - height // 4), size)
    return BOX.format(", ".join(f"{edge:.2g}" if frame is Frame.UNIT else str(round(edge)) for edge in box))


def words(policy: Policy, ids: Sequence[int], sizes: Sequence[Size]) -> str:
    """Token ids as text, each picture's placeholders as "[picture 112x112, 16 tokens]"."""
    sizes, text = list(sizes), ""
    for is_image, run in groupby(ids, lambda token: token == policy.chat.image_id):
        piece = list(run)
        if is_image:
            width, height = sizes.pop(0)
            text += f"[picture {width}x{height}, {len(piece)} tokens]"
        else:
            end = policy.token_texts[policy.chat.end_id] if piece[-1] == policy.chat.end_id else ""
            text += policy.chat.decode(piece) + end  # `decode` takes the last one off
    return printable(shorten(text, TEXT))
