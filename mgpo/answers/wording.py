r"""Wording without what does not matter: markup, LaTeX, quotes, case, articles, abbreviations, units' spelling."""

import re
import unicodedata
from functools import lru_cache

from mgpo.answers.numbers import DECADE, WORDS, ascii_digits, in_digits, unaccented

LONGEST_ANSWER = 500  # characters that are read
QUOTES = "\"'`´‘’‚‛“”„‟«»‹›「」『』＂"
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:rm|bf|it|sf|tt|bb|cal|normal)|mbox|fbox|boxed|emph|underline|"
    r"operatorname\*?|boldsymbol|bm|bold|pmb|displaystyle)\s?\{([^{}]*)\}"
)
_SWITCH = re.compile(r"\\(?:bf|rm|it|tt|bfseries|displaystyle|left|right|big[lr]?|Big[lr]?)(?![a-zA-Z])")
_FRAC = re.compile(r"(?<=\d)?\\[dtc]?frac\s?(?:\{([^{}]{1,40})\}\s?\{([^{}]{1,40})\}|(\d)\s?(\d))")
_SPACE = re.compile(r"\\(?:[ ;:!,>\\]|(?:q?quad|enspace|thinspace|newline)(?![a-zA-Z]))")
_DEGREE = re.compile(r"\s?\^?\s?\{?\s?\\(?:circ|degree)\s?\}?")
_SIGNS = {r"\times": "×", r"\cdot": "·", r"\div": "÷", r"\pm": "±", r"\approx": "≈", r"\sim": "~", r"\%": "%",
          r"\$": "$", r"\#": "#", r"\&": "&", r"\_": "_", r"\{": "{", r"\}": "}", r"\ldots": "...",
          r"\leq": "≤", r"\geq": "≥", "{,}": ","}  # fmt: skip
_SIGN = re.compile("|".join(re.escape(sign) + ("(?![a-zA-Z])" if sign[-1].isalpha() else "") for sign in _SIGNS))
_BOUND = rf"[-+]?[$€£¥~≈.]{{0,2}}\s?(?:\d|(?i:{'|'.join(WORDS)})\b)"  # "> 5" is no quote
_MARKUP = re.compile(
    r"\*{1,3}|`{1,3}|(?<!\w)_{1,2}(?=\w)|(?<=\w)_{1,2}(?!\w)|</?(?:b|i|u|em|strong|p|br|span|code)\s?/?>|"
    rf"^\s*(?:#{{1,6}}|>(?!\s*{_BOUND})|[-•](?=\s*[^\d\s]))\s",
    re.MULTILINE,
)
_TAGGED = re.compile(r"\s*<answer>\s*([^<\s][^<]*)</answer>\s*", re.IGNORECASE)
_PAIRS = {
    "()",
    "[]",
    "{}",
    "「」",
    "『』",
    "【】",
    "<>",
    "〔〕",
    "〖〗",
    "〈〉",
    "⟨⟩",
    "“”",
    "«»",
    "‘’",
    "《》",
    '""',
    "''",
}
UNITS = {
    "km": "kms kilometer kilometers kilometre kilometres", "m": "meter meters metre metres",
    "cm": "centimeter centimeters centimetre centimetres", "mm": "millimeter millimeters millimetre millimetres",
    "mi": "mile miles", "ft": "foot feet", "in": "inch inches", "yd": "yard yards",
    "kg": "kgs kilo kilos kilogram kilograms", "g": "gram grams", "mg": "milligram milligrams",
    "lb": "lbs pound pounds", "oz": "ounce ounces", "l": "liter liters litre litres",
    "ml": "milliliter milliliters millilitre millilitres", "mph": "miles_per_hour mi/h",
    "km/h": "kph kmh kmph kilometers_per_hour kilometres_per_hour km_per_hour",
    "h": "hr hrs hour hours", "min": "mins minute minutes", "s": "sec secs second seconds",
    "°c": "degrees_celsius degree_celsius degrees_c deg_c celsius ℃",
    "°f": "degrees_fahrenheit degree_fahrenheit degrees_f deg_f fahrenheit ℉", "°": "degree degrees deg",
    "%": "percent per_cent pct prozent procent pour_cent por_ciento per_cento por_cento",
    "$": "dollar dollars usd us_dollars us$", "€": "euro euros eur",
    "£": "gbp pounds_sterling", "¥": "yen jpy yuan rmb cny", "mb": "megabyte megabytes", "gb": "gigabyte gigabytes",
    "px": "pixel pixels",
}  # fmt: skip
_UNIT = {spelt.replace("_", " "): unit for unit, words in UNITS.items() for spelt in [unit, *words.split()]}
_SPELT = "|".join(map(re.escape, sorted({*_UNIT} - {"s"}, key=len, reverse=True)))
_MEASURE = re.compile(rf"(?<=\d)(?:[\s-]?({_SPELT}|(?<=[\s-])s)|({DECADE}s))(?:\.(?=\s|$))?(?![\w/])")
_PRICE = re.compile(r"(?:\b(?:us|usd|eur)\s?)?([$€£¥])\s?(\d[\d,.]{0,18}\d|\d)")
_SHORT = {"st": "street", "ave": "avenue", "av": "avenue", "rd": "road", "blvd": "boulevard", "dr": "drive",
          "ln": "lane", "hwy": "highway", "pkwy": "parkway", "sq": "square", "pl": "place", "ct": "court",
          "str": "straße", "bldg": "building", "apt": "apartment", "dept": "department", "co": "company",
          "inc": "incorporated", "ltd": "limited", "jr": "junior", "sr": "senior"}  # fmt: skip
_TITLES = {"dr": "doctor", "st": "saint", "mt": "mount", "ft": "fort", "mr": "mister", "prof": "professor",
           "rt": "route", "rte": "route", "hwy": "highway"}  # fmt: skip
_EXTENTS = {"tall", "high", "long", "wide", "deep", "thick", "away", "apart", "by", "x", "×"}  # "6 ft tall"
_SAME = {"grey": "gray", "colour": "color", "centre": "center", "theatre": "theater", "ok": "okay", "vs": "versus",
         "harbour": "harbor", "jewellery": "jewelry", "tyre": "tire", "aeroplane": "airplane", "programme": "program",
         "first": "1st", "second": "2nd", "third": "3rd", "fourth": "4th", "fifth": "5th", "sixth": "6th",
         "seventh": "7th", "eighth": "8th", "ninth": "9th", "tenth": "10th"}  # fmt: skip
_NUMBERED = re.compile(r"(?<!\w)(?:no\.?|nr\.?|number|num\.?|№)\s?(?=\d)")
_AT = re.compile(r"\A(?:on|in|at)\s(?=(?:the\s)?[A-Z\d])")  # "on Elm Street", but not "On Sale"
_ARTICLE = re.compile(r"\A(?:an?|the|eine?n?|der|das|les?|une?|una|el|los|las|il|het)\s(?=\S)")
_TIMES = re.compile(r"(?<=\w)\s[x×*]\s(?=\d)|(?<=\d)[x×*](?=\d)")
# "2,5 kg", "1.200,50 €", "0,125"; else "1,5" may be two numbers
_COMMA = re.compile(
    r"\A([-+]?(?:\d{1,3}(?:\.\d{3}){1,5}|\d{1,15})),(\d{1,2})"
    rf"(?= (?:{'|'.join(map(re.escape, UNITS))})\Z)|\A([-+]?0),(\d{{1,9}})\Z"
)
_THOUSANDS = re.compile(r"(?<![\w.,])\d{1,3}(?:,\d{3}){1,5}(?![\w,])")
_ZEROS = re.compile(
    r"(?<![\w.])(?<=\d)\.0{1,9}(?![\w.])|(?<=\d)(?<!\.\d)\.0{1,2}(?=\s?[$€£¥%]|\s(?:km|m|kg|g|cm|mph)\b)"
)
_INITIALS = re.compile(r"(?<![^\W\d_])([^\W\d_])\.\s?(?=[^\W\d_](?:\.|$))|(?<=\b[^\W\d_])\.(?=\s|$)")
_MIXED = re.compile(r"(?<![\w./-])(\d{1,5})\s(\d{1,2})\s?/\s?([1-9]\d?)(?![\w/.]\d)(?!\d)")
_POWER_OF_UNIT = re.compile(r"(?<=\d)(\s?(?:[kcm]?m|ft|in|mi|yd))\^(?=[23]\b)")  # "5 cm^3" is "5 cm3", as "5 cm³" is
# "minus 5", "x = - 5", but neither "7 - 5" nor "(x) - 5"
_MINUS = re.compile(r"\b(?:minus|negative)\s(?=\d)|(?<![^\s=(])-\s(?=[\d.,/]+\)?\Z)(?<!\w\s-\s)(?<!\)\s-\s)")
# Those of "10 - 15", "Rome - Oslo", "1 : 2", "Smith , John", but not of "A - red", "3 -5", "3 - 2i"
_BLANKS = re.compile(r"(?<=\d)\s[-:]\s(?=\d)(?!\d+[^\W\d_]\b)|(?<=[^\W\d_]{2})\s-\s(?=[^\W\d_]{2})|\s(?=,)")
_HOURS = re.compile(r"\A(\d[\d:]{0,4})\s?([ap]m)\s?-\s?(\d[\d:]{0,4})\s?([ap]m)\Z")  # "9 am - 5 pm"
_ENDS = re.compile(r"^(?:[\s,;:!?。、，；：！？…]|\.(?!\d)|-(?![\d.]|\s[\d.,/]+\Z))+(?=\S)|[\s.,;:!?。、，；：！？…]+$")


def unwrap(answer: str) -> str:
    r"""An answer without what is wrapped around it: <answer>…</answer>, \text{…}, $…$, quotes, brackets, a stop."""
    text = re.sub("[®©™]", "", _untagged(answer[:LONGEST_ANSWER]))
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)  # what follows makes "2½" 21/2, and "5²" 52
    text = re.sub(r"(?<=\d)(?=⁻?[²³¹⁰⁴-⁹])", "^", text)
    text = unicodedata.normalize("NFKC", text)[:LONGEST_ANSWER]  # one sign may become eighteen
    text = "".join(sign for sign in text if unicodedata.category(sign) not in ("Cf", "Cs") or sign == "\n")
    text = _MARKUP.sub("", _plain_latex(text) if "\\" in text or "{" in text else text)
    if text.count("$") > 1 or (text.count("$") == 1 and not re.search(r"\$\s?\d|\d\s?\$", text)):
        text = re.sub(r"^\s*\${1,2}(?!\d[\d.,]*\s?(?:-|–|to|and)\s?\$)|\${1,2}\s*$", "", text)
    text = text.strip()
    for _ in range(4):
        bare = text.rstrip(".。").strip()
        bare = bare.strip(QUOTES) if len(bare) > 1 and bare[0] in QUOTES and bare[-1] in QUOTES else bare
        if bare[:1] + bare[-1:] in _PAIRS and not set("()[]{}<>〔〕〖〗〈〉⟨⟩") & set(bare[1:-1]):
            bare = bare[1:-1].strip()
        if bare == text or not bare:
            break
        text = bare
    return text


def _untagged(answer: str) -> str:
    tagged = _TAGGED.fullmatch(answer)
    return tagged[1] if tagged else answer


def _plain_latex(text: str) -> str:
    text = re.sub(r"\\[()\[\]]", " ", re.sub(r"(?<=\d)\\[,!](?=\d{3})", ",", text))
    for _ in range(6):
        text, wrapped = _WRAPPER.subn(r"\1", text)
        text, divided = _FRAC.subn(_divided, text)
        if not wrapped + divided:
            break
    text = _SIGN.sub(lambda sign: _SIGNS[sign[0]], _DEGREE.sub("°", text))
    text = _SWITCH.sub("", _SPACE.sub(" ", text))
    return re.sub(r"\^\{(-?\w{1,9})\}", r"^\1", re.sub(r"(?<![\w\\^_}])\{([^{}\\]*)\}", r"\1", text))


def _decimal(match: re.Match[str]) -> str:
    """ "2 1/2" as one number, where it is a short one in decimals."""
    share = int(match[2]) / int(match[3])
    exact = share < 1 and round(share, 3) == share
    return f"{int(match[1]) + share:g}" if exact else match[0]


def _divided(match: re.Match[str]) -> str:
    whole = " " if match.start() and match.string[match.start() - 1].isdigit() else ""
    return f"{whole}{match[1] or match[3]}/{match[2] or match[4]}"


@lru_cache(4096)  # an answer is compared with its question's options many times
def normalise(answer: str) -> str:
    """Unwrapped, in lower case, with one space between words, and what may be written in two ways in one of them."""
    text = ascii_digits(_AT.sub("", unwrap(answer))).casefold().replace("⁄", "/")
    text = re.sub(r"[‘’‛´`]", "'", re.sub(r"[–—‐‑‒−]", "-", text))
    if len(re.findall(r"[\"“”]", text)) == 1:  # inches, and no quote
        text = re.sub(r"(?<=\d)[\"”]", " in", text)
    text = re.sub(r"[\"“”„«»]", "", _MIXED.sub(_decimal, text))
    text = _POWER_OF_UNIT.sub(r"\1", text)
    text = _ENDS.sub("", text) or text
    text = re.sub(r"\bno[\s-]one\b", "nobody", _INITIALS.sub(r"\1", text.strip()))
    text = _BLANKS.sub(lambda match: match[0].strip(), _NUMBERED.sub("#", _HOURS.sub(r"\1\2-\3\4", text)))
    text = re.sub(r"(?<=\d),(?=\s)|(?<=[^\W\d]),(?=\s)", " and ", text.replace(" & ", " and "))
    text = re.sub(r"\band\s+and\b", "and", re.sub(r"\s+", " ", text))
    text = re.sub(r"(?<=[^\W\d_])-(?=[^\W\d_])|(?<=\d)-(?=[^\W\d_]{2})", " ", in_digits(text))
    text = _MINUS.sub("-", text)
    text = re.sub(r"\s?([=+×<>≤≥])\s?", r"\1", _TIMES.sub("×", text))
    text = _MEASURE.sub(lambda match: f" {_UNIT[match[1] or match[2]]}", _PRICE.sub(r"\2 \1", text))
    if not answer.lstrip().startswith(("(", "[")):  # "(1,5)" is a pair
        text = _COMMA.sub(lambda match: f"{(match[1] or match[3]).replace('.', '')}.{match[2] or match[4]}", text)
    text = _ZEROS.sub("", _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text))
    return _spelt(_ARTICLE.sub("", text, count=1))


def _spelt(text: str) -> str:
    """Words in their long form and without accents; full stops behind words are gone."""
    words = [word.rstrip(".!?:;") or word for word in re.sub(r"(?<=\s)the\s", "", text).split()]
    for i, word in enumerate(words):
        if i and word in _SHORT and (i == len(words) - 1 or len(words) == 2 or not words[i + 1].isalpha()):
            words[i] = _SHORT[word]
        elif i < len(words) - 1 and word in _TITLES and not (word == "ft" and words[i + 1] in _EXTENTS):
            words[i] = _TITLES[word]
        else:
            words[i] = _SAME.get(word, word)
    return unaccented(" ".join(words))
