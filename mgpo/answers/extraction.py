"""What a reply commits to: what it marks as its answer, else what it says is the answer, else a short reply itself."""

import re
from collections.abc import Iterator

from mgpo.answers.meaning import find_number, is_right
from mgpo.answers.options import choice_letter
from mgpo.answers.phrases import CLAUSE, CONTRAST, HYPOTHETICAL, REST, SAID, SUPPOSED, VOID, any_of
from mgpo.answers.short import LONGEST_SENTENCE, READS, chosen, plain
from mgpo.answers.thoughts import spoken
from mgpo.answers.wording import LONGEST_ANSWER, QUOTES, normalise

LONGEST_REPLY = 10_000  # characters that are read of a reply, from its end: there it commits
LONGEST_END = 5_000  # the same, where a reply marks nothing as its answer
MOST_STATEMENTS = 12  # of each kind, such as "the answer is …", from the end
_BOXED = re.compile(r"\\?boxed\s{0,3}\{")
_BOXED_LETTER = re.compile(r"\\boxed\s{1,3}([A-Z])\b")
_TAG = re.compile(r"<answer>((?:[^<]|<(?!answer>)){0,500}?)</answer>", re.IGNORECASE)
_KEY = re.compile(
    r"""["'](?:final_?\s?)?(?:answer|choice|option|count)["']\s{0,3}:\s{0,3}"""
    r"""(?:"([^"]{0,500})"|'([^']{0,500})'|(\d+(?:\.\d+)?))""",
    re.IGNORECASE,
)
_CHOOSE = any_of(
    "choose, pick, select, go with, going with, opt for, must be, it is, it's, that's, that is, one is, therefore, "
    "it was, I say, I'll say, thus, hence, so, but, leaves, leaves us with, leaving, left with, rather, actually, "
    "mean, meant, wähle, nehme, choisis, elijo, escolho, scelgo, kies, выбираю"
)
_LETTER = r"['\"‘“]?[(\[]?[A-Z][)\]]?['\"’”]?"
# "so B.", "I choose (C)": a letter and nothing else must follow
_CHOSEN = re.compile(
    rf"(?i:\b{_CHOOSE}\b[,:]?\s{{1,3}}|[选選]择?\s{{0,3}}[:：]?\s{{0,3}}|(?<![不选選])是\s{{0,3}}|[=-]>\s{{0,3}}|[→⇒]\s{{0,3}}"
    r"|^(?:okay|ok|sure|well|hm+)[,.!…]{1,3}\s)"
    rf"(?i:(?:option|choice|letter|answer)\s)?({_LETTER})"
    r"(?!\W{1,5}(?i:or|also|maybe|possibly|perhaps|alternatively|but\salso)\b)(?=\s{0,3}(?:[.,;!。，]|$|\n|because\b|since\b))"
)
_BE = any_of(
    "be, like, definitely, clearly, certainly, probably, likely, obviously, surely, ist, es, es la, est, est la, é, "
    "é a, è, è la, sería, seria, sarebbe, sia"
)
# "…: B", "… would say B", "… corresponds to option B", "…, which is (B)": at the very end
_LAST = re.compile(
    r"(?i:[a-z]:\s|(?:'d|would|'ll|will)\s(?:say|guess)\s|(?:\b(?:is|be|to|with|match|matches)\s|[—–,(-]\s?)(?:option|choice)\s"
    rf"|\b{_BE}\s|(?:\.{{3}}|…)\s?|\b(?:is|be|i\.e\.,?|choice|option|answer)\s(?=\()"
    r"|^(?:final\s|correct\s|my\s)?answer\s)"
    r"['\"‘“]?(\(?[A-Z]\)?)[^\w?]{0,3}(?:\w+\.)?$"
)
# "B is right", "C is the only one that fits", "D remains"
_FITS = r"fits|matches|remains|is\s(?:right|correct|left|not\s(?:excluded|ruled\sout))"
_RIGHT = re.compile(
    r"(?<![A-Za-z'’])(\(?[A-Z]\)?)(?:\s(?i:(?:is|seems|looks|remains)(?:\s(?:the|clearly|definitely)){0,2}\s(?:most\s)?"
    r"(?:correct|right|best|better|answer|plausible|likely|likeliest|"
    rf"only\s(?:correct|right|possible|answer|(?:one|option)\s(?:left|that\s(?:{_FITS}))))\b"
    r"|(?:remains|is\sleft|it\sis)\b(?=\W*$))|(?:是)?正确)"
)
_REASON = re.compile(
    r",\s(?:as|since|because|for|so|which)\b|\s(?:because|since|weil|parce\sque|porque|perché|omdat|因为)\s|，因为|，因為"
)
# a full stop that is not an abbreviation's; what follows begins anew where it is long, or with such a word
_SENTENCE = re.compile(r"(?<!\b[A-Z])(?<!\b(?:Dr|Mr|Ms|St|Mt|No|Ft|vs))(?<!\b(?:Mrs|Ave))[.!?]+\s+")
_NEW = any_of(
    "i, it, its, the, this, that, these, as, because, since, we, you, there, he, she, they, but, so, thus, sure"
)
_OPENS = re.compile(rf"{_NEW}\b", re.IGNORECASE)
_TAIL = re.compile(r"\s?(?:です|でした|である|だ|입니다|이다|예요|है|हैं)\s?[。.!]{0,2}$")
_PICK = re.compile(r"\(?[A-Z]\)?(?:[.,;:!]|\s|$)|[-+]?\d")
_THINK = any_of(
    "I think, I believe, I guess, I suppose, I would say, I'd say, for sure, of course, obviously, no doubt"
)
_SURE = re.compile(rf"(?<=\w)[\])}}.\"']?(?:,\s|\s[-–—]\s|\s){_THINK}\W{{0,3}}$", re.IGNORECASE)
_SLIPS = any_of(
    "no, oh no, nope, wait, oh wait, actually, sorry, oops, hmm, hold on, scratch that, correction, on second thought, "
    "I mean, make that, or rather, nein, non"
)
_MEANT = re.compile(r"(?:(?:oh|oops|sorry)[,.!]?\s)?I\smeant?\s(?:to\ssay\s)?(?=\S)", re.IGNORECASE)
_ANEW = any_of("I mean, wait, actually, it's, it is, the answer, on second")
# "A... no, B", "A. Wait, actually it's B"
_AGAIN = re.compile(
    r"(?<=\S)(?:\s?(?:\.{2,3}|…|[.,;:!?—–-])\s{0,3}|\s{1,3}|\n)"
    rf"(?:{_SLIPS}(?:[,.:;!…—–-]+|\s(?={_ANEW}))|I\smeant?\s|不对[，,。]?|不，)\s{{0,3}}"
    r"(?:(?:no|wait|actually|sorry|it['’]s|it\sis|I\smeant?)\b[,.:]?\s)?(?=\S)",
    re.IGNORECASE,
)
_ANNOUNCED = re.compile(rf"(?:{SAID.pattern}|\b{READS}\s{{0,3}}:?)\Z", re.IGNORECASE)
# "option B: …" and "the letter on the sign" describe, and do not choose
_DESCRIBED = re.compile(r"\S+\s\(?(?!I\b)[A-Z]\)?(?:\s|:|：|$)|(?i:letter)\s(?i:on|in|at|written|shown)\b")
_ANSWER = re.compile(r"answer\b", re.IGNORECASE)
_ANSWER_IS = re.compile(r"(?:(?:the|my)\s)?(?:final\s|correct\s)?answer(?:\sis|:|\sis:)\s{1,3}", re.IGNORECASE)
# in front of a box or tag: "not \\boxed{A}", "\\boxed{A} or \\boxed{B}"
_UNBOXED = re.compile(r"(?:\b(?:not|isn['’]t)|[}>$]\s?or)[\s$\\(\[]{0,6}\Z", re.IGNORECASE)
# a sum behind an answer may be of other things
_SUMS = re.compile(r"(?:total|count)\b", re.IGNORECASE)
_TAKEN_BACK = re.compile(
    r"(?i:that|this|it)(?i:['’]s|\s(?:is|seems|looks))\s(?i:wrong|incorrect|false|not\s(?:right|correct|it))\W*$"
)


def extract(reply: str, choices: tuple[str, ...] = (), *truths: str) -> str | None:
    r"""The last commitment of a reply: `\boxed{…}`, `<answer>…</answer>`, "the answer is …", or a plain short answer.

    Nothing is guessed: a reply that commits to nothing ("Based on the picture …", "I doubt option B is correct.")
    gives None, and so does a thought. Behind a box or tag only "the answer is …" counts, and only where it names an
    option, or a number where there are no options, so that "the answer is clear" takes nothing back.

    Args:
        reply: What the policy said.
        choices: The question's; a short reply then is an answer only where it is one of them.
        truths: A reply that is one of these, or "the answer is" and one of these, and nothing else, is an answer,
            whatever it looks like ("unknown", "None" for 0, "Oh no, not again").
    """
    reply = spoken(reply)[-LONGEST_REPLY:].strip()
    if reply and reply in map(str.strip, truths):
        return reply
    reply = re.sub(r"\*+|`+", "", reply)
    if not choices and (announced := next((truth for truth in truths if _announces(reply, truth.strip())), None)):
        return announced
    reply = _MEANT.sub("", reply, count=1) if _MEANT.match(reply) else reply
    if sure := _SURE.search(reply, max(0, len(reply) - LONGEST_SENTENCE)):
        reply = reply[: sure.start()]
    end = reply[-2 * LONGEST_SENTENCE :]
    *_, again = [None, *_slips(end, choices)]
    if again is not None and "\n" not in end[again.end() :]:
        if _TAKEN_BACK.match(end[again.end() :]):
            return None
        if (instead := _commitment(end[again.end() :], choices)) is not None:
            return instead
    said = _commitment(reply, choices)
    return reply if said is None and not choices and any(_is_truth(reply, truth) for truth in truths) else said


def _announces(reply: str, truth: str) -> bool:
    """Whether a reply is "the answer is" and the answer as it is written, and nothing else."""
    said, truth = reply.rstrip(" .。"), truth.rstrip(" .。")
    return bool(truth) and said.endswith(truth) and bool(_ANSWER_IS.fullmatch(said.removesuffix(truth)))


def _is_truth(reply: str, truth: str) -> bool:
    """Whether a reply is the right answer in other spelling, or one word that means the same."""
    same = bool(normalise(truth)) and normalise(reply) == normalise(truth)
    return same or (len(reply.split()) == 1 and is_right(reply, truth))


def _slips(reply: str, choices: tuple[str, ...]) -> Iterator[re.Match[str]]:
    """Where a reply takes back what it said; where any text may be the answer, it may be "Sorry, we're closed"."""
    marked = [match.span() for match in _TAG.finditer(reply)]
    if (boxed := _last_boxed(reply)) is not None:
        marked.append(boxed[:2])
    for slip in _AGAIN.finditer(reply):
        within = any(start < slip.start() < end for start, end in marked)
        begins = slip[0][0] in " :" and _ANNOUNCED.search(f"{reply[: slip.start()]}:")
        if choices or not (within or begins):
            yield slip


def _commitment(reply: str, choices: tuple[str, ...]) -> str | None:
    """The last one of a reply that takes nothing back."""
    marked = [(m.start(), m.end(), next(g for g in m.groups() if g is not None)) for m in _TAG.finditer(reply)]
    marked += [(m.start(), m.end(), next(g for g in m.groups() if g is not None)) for m in _KEY.finditer(reply)]
    if (boxed := _last_boxed(reply)) is not None:
        marked.append(boxed)
    _, end, last = max(marked, default=(-1, -1, None))
    unboxed = marked and _UNBOXED.search(reply[: max(marked)[0]])
    last = None if unboxed else last
    said = list(_statements(reply, choices, end))
    picks = [(at, text) for at, text, picked in said if picked]
    if last is None and choices:
        picks += [pick for rule in (_CHOSEN, _LAST, _RIGHT) for pick in _lettered(reply, rule, choices)]
    if picks:
        last = max(picks)[1]
    elif unboxed:
        return None
    if last is None and choices:
        last = chosen(reply.strip(), choices)
    if last is None and said:
        last = said[0][1]
    if last is not None:
        return last.strip() or None
    return None if choices else plain(reply.strip())


def _last_boxed(reply: str) -> tuple[int, int, str] | None:
    r"""Start, end and content of the last complete `\boxed{…}`, braces balanced."""
    for start in reversed(list(_BOXED.finditer(reply))[-MOST_STATEMENTS:]):
        depth = 1
        for i in range(start.end(), min(len(reply), start.end() + LONGEST_ANSWER)):
            depth += (reply[i] == "{") - (reply[i] == "}")
            if depth == 0:
                return start.start(), i + 1, reply[start.end() : i]
    letter = _BOXED_LETTER.search(reply)
    return (letter.start(), letter.end(), letter[1]) if letter else None


def _statements(reply: str, choices: tuple[str, ...], start: int) -> Iterator[tuple[int, str, bool]]:
    """Place and text of what "the answer is", where it is not denied, from the last to the first that is a pick."""
    found = [*SAID.finditer(reply, max(start, len(reply) - LONGEST_END))][-MOST_STATEMENTS:]
    rests = [REST.match(reply, said.end()) for said in found if _ANSWER.match(said[0])]
    answered = any(rest and find_number(_first_part(rest[1])) is not None for rest in rests)
    for said in reversed(found):
        if (rest := REST.match(reply, said.end())) is None or _void(reply, said.end()):
            continue
        if _DESCRIBED.match(said[0]) or (_SUMS.match(said[0]) and (start >= 0 or answered)):
            continue
        text, picked = _TAIL.sub("", rest[1].strip()), False
        if not (choices and choice_letter(text, choices)):
            text = _first_part(text)
        if text:
            picked = (choice_letter(text, choices) if choices else _PICK.match(text)) is not None
            if picked and not choices and start >= 0 and text[:1].isdigit():  # behind a box, a number and nothing else
                picked = find_number(text) is not None
            yield said.end(), text, picked
        if picked:
            return


def _lettered(reply: str, rule: re.Pattern[str], choices: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """The last letter of an option that a rule finds, where it is not denied."""
    near = LONGEST_SENTENCE if rule is _LAST else LONGEST_END
    for match in reversed([*rule.finditer(reply, max(0, len(reply) - near))][-MOST_STATEMENTS:]):
        letter = match[1].strip(QUOTES)
        if not _void(reply, match.start(1)) and choice_letter(letter, choices):
            yield match.start(1), letter
            return


def _void(reply: str, at: int) -> bool:
    """Whether the clause that leads to a place denies what stands there, or leaves it open."""
    before = reply[max(0, at - LONGEST_SENTENCE) : at].rstrip(" :：=-–—\n")
    clause, sentence = CLAUSE.split(before)[-1], re.split(r"[.!?\n。！？]", before)[-1]
    elsewhere = re.search(r"\bwould\b", clause) and HYPOTHETICAL.search(sentence)
    return bool(VOID.search(clause) or SUPPOSED.search(clause) or elsewhere)


def _first_part(text: str) -> str:
    """What "the answer is" is followed by, without the reason or sentence that may come after it."""
    text = CONTRAST.sub("", _REASON.split(text, maxsplit=1)[0].strip(), count=1)
    for end in _SENTENCE.finditer(text):
        rest = text[end.end() :]
        if len(rest.split()) > 2 or _OPENS.match(rest):
            return text[: end.start()].strip()
    return text.rstrip(".。").strip()
