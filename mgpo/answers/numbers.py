"""Numbers in digits, signs and words, in the languages that models slip into."""

import re
import unicodedata
from functools import lru_cache

WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_ENGLISH = {word: float(number) for number, word in enumerate(WORDS)}
_ENGLISH |= {
    word: 10.0 * ten
    for ten, word in enumerate(("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), start=3)
}
_SCALES = {"dozen": 12.0, "hundred": 100.0, "thousand": 1e3, "million": 1e6, "billion": 1e9}
# From zero upwards; then the tens from 20; then how a ten and a one are joined.
_LANGUAGES = (
    ("null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
     "achtzehn neunzehn", "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig", ("{one}und{ten}",)),
    ("nul een twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien zeventien "
     "achttien negentien", "twintig dertig veertig vijftig zestig zeventig tachtig negentig",
     ("{one}en{ten}", "{one}ën{ten}")),
    ("zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit "
     "dix-neuf", "vingt trente quarante cinquante soixante soixante-dix quatre-vingts quatre-vingt-dix",
     ("{ten}-{one}", "{ten} et {one}", "{ten}-et-{one}")),
    ("cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete "
     "dieciocho diecinueve", "veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa",
     ("{ten} y {one}", "veinti{one}")),
    ("zero um dois três quatro cinco seis sete oito nove dez onze doze treze catorze quinze dezesseis dezessete "
     "dezoito dezenove", "vinte trinta quarenta cinquenta sessenta setenta oitenta noventa", ("{ten} e {one}",)),
    ("zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici "
     "diciassette diciotto diciannove", "venti trenta quaranta cinquanta sessanta settanta ottanta novanta",
     ("{ten}{one}",)),
    ("ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать четырнадцать "
     "пятнадцать шестнадцать семнадцать восемнадцать девятнадцать",
     "двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят девяносто", ("{ten} {one}",)),
    ("zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć dziesięć", "", ()),
    ("noll ett två tre fyra fem sex sju åtta nio tio", "", ()),
    ("sıfır bir iki üç dört beş altı yedi sekiz dokuz", "", ()),
    ("nol satu dua tiga empat lima enam tujuh delapan sembilan sepuluh", "", ()),
    ("không một hai ba bốn năm sáu bảy tám chín mười", "", ()),
    ("शून्य एक दो तीन चार पाँच छह सात आठ नौ दस", "", ()),
    ("صفر واحد اثنان ثلاثة أربعة خمسة ستة سبعة ثمانية تسعة عشرة", "", ()),
    ("صفر یک دو سه چهار پنج شش هفت هشت نه ده", "", ()),
    ("אפס אחת שתיים שלוש ארבע חמש שש שבע שמונה תשע עשר", "", ()),
    ("শূন্য এক দুই তিন চার পাঁচ ছয় সাত আট নয় দশ", "", ()),
    ("μηδέν ένα δύο τρία τέσσερα πέντε έξι επτά οκτώ εννέα δέκα", "", ()),
    ("ศูนย์ หนึ่ง สอง สาม สี่ ห้า หก เจ็ด แปด เก้า สิบ", "", ()),
    ("nula jedna dva tři čtyři pět šest sedm osm devět deset", "", ()),
    ("nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän kymmenen", "", ()),
    ("영 하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉 열", "", ()),
    ("영 일 이 삼 사 오 육 칠 팔 구 십", "", ()),
)  # fmt: skip
# In a sentence these are words of English, articles or pronouns.
_OTHERWISE = {"once", "due", "uno", "een", "elf", "sex", "sei", "fem", "tio", "bir", "tre", "hai", "dos", "nul", "null"}
_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,5}|\d{1,3}(?:['\u2019\u202f ]\d{3}){1,5}|(?:0|[1-9]\d{0,14}))(?:\.\d{1,15})?"
_PLAIN = re.compile(rf"[-+]?(?:{_DIGITS}|\.\d{{1,15}})(?:e[-+]?\d{{1,2}})?")
_POWER = re.compile(rf"([-+]?{_DIGITS})\s?[x×*·]\s?10\s?\^\s?\(?(-?\d{{1,2}})\)?")
_FRACTION = re.compile(r"([-+]?)(?:(\d{1,6})\s)?(\d{1,6})\s?[/⁄]\s?(\d{1,6})")
_HALF_A = re.compile(rf"(?<!\band\sa\s)\bhalf[\s-](?:an?\s)?({'|'.join(_SCALES)})\b")
_AND_HALF = re.compile(r"(?<![\w.,/])(\d{1,9})\sand\sa\shalf\b")
_PART = re.compile(r"\b(?:(one|1)[\s-]half|(one|two|1|2)[\s-]thirds?)(?=\s?$|\sof\b)")  # quarters may be coins
_NUMERALS = "零〇一二两兩三四五六七八九十百千万"
_CHINESE = re.compile(rf"[{_NUMERALS}]{{1,12}}")
_MEASURED = re.compile(
    rf"(?<!第)([{_NUMERALS}]{{1,12}})(?=\s?[个個辆輛只隻人条條张張名位台匹艘本座棵块塊件つ枚頭匹羽])"
)
_ONES, _SCALE = "|".join(sorted(_ENGLISH, key=len, reverse=True)), "|".join(_SCALES)
_SCALED = re.compile(rf"(?<![\w.,])((?:\d{{1,3}}(?:,\d{{3}}){{1,3}}|\d{{1,9}})(?:\.\d{{1,6}})?)\s?-?({_SCALE})\b")
_SEQUENCE = re.compile(
    rf"\b(?:an?\s(?:{_SCALE})|{_ONES})(?:(?:\s?-\s?|\s|\sand\s)(?:{_ONES}|{_SCALE})){{0,9}}(?:\sand\sa\shalf)?\b"
)
# a stretch with a digit in it, with whatever sticks to it: a code, a time or a date is no number
_NUMERIC = re.compile(r"[A-Za-z0-9.,:/+#$€£¥%°~≈_'-]{0,40}\d[A-Za-z0-9.,:/+#$€£¥%°~≈_'-]{0,40}")
DECADE = r"(?<!\b1[5-9]\d0)(?<!\b20\d0)"  # not behind "1990", whose "s" is no second
_UNIT_END = re.compile(
    r"(?<=\d)(?:%|°[cf]?|[$€£¥]|km/h|km|cm|mm|m|mi|ft|in|kg|g|mg|lbs?|oz|mph|kph|l|ml|h|min|px|" + DECADE + "s)$"
)
_SPACED = re.compile(r"(?<!\d)\d{1,3}(?: \d{3}){1,5}(?!\d| \d)")
# A number beside one of these is a bound, or a part of something else.
BOUND = re.compile(
    r"\b(?:not|less|more|fewer|than|least|most|over|under|below|above|up\sto|except|without|minimum|maximum|in\sexcess|"
    r"exceed\w*|upwards|beyond|más|menos|plus|moins|mehr|weniger|mindestens|höchstens|über|unter|nicht|более|менее|больше|"
    r"меньше)\b|n't\b|[<>≤≥]|\d\s?-?(?:odd|plus)\b"
    r"|至少|至多|超过|超過|少于|少於|多于|以上|以下|不|\d[多余]|이상|이하"
    # what is done with it
    r"|[≠±√∛π∞^]|\\(?:sqrt|pi|pm|mp|[gl]e|[gl]t|[gl]eqslant|neq?|gg|ll|log|ln|sin|cos|tan|cot|sec|csc|exp|infty)(?![a-z])"
    r"|\b[a-z]\s[-+]\s\d|\d\s[xyz]\Z|\b(?:half\sof|twice|double|triple|(?:root|log)\sof)\s\d"
    r"|\d\s(?:squared|cubed|factorial|divided\sby)\b"
    # parts and scales that are not read
    r"|\b(?:fourths|fifths|sixths|sevenths|eighths|ninths|tenths)\b|\d\s?[亿億兆억조]"
    r"|\b(?:[mb]illions|trillions?|lakhs?|crores?|bn|mrd|mio|mil|mille|mill?ones|mil(?:h|i)ões|million(?:en|er)|milliard\w*"
    r"|тыс|млн|млрд)\b"
)


def value(text: str) -> float | None:
    """The number that a text is, in lower case: "1,200", "1/2", "twenty-one", "drei", "三十"; None for any other text.

    Digits behind a leading zero are a code ("007"), not a number.
    """
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return float(re.sub(r"[,'\u2019\u202f ]", "", text))
    if match := _POWER.fullmatch(text):
        return float(re.sub(r"[,' ]", "", match[1])) * 10.0 ** int(match[2])
    if (match := _FRACTION.fullmatch(text)) and int(match[4]):
        return (-1.0 if match[1] == "-" else 1.0) * (int(match[2] or 0) + int(match[3]) / int(match[4]))
    if _CHINESE.fullmatch(text):
        return _of_numerals(text)
    if _SEQUENCE.fullmatch(text):
        return _of_words(text)
    return {"half": 0.5, "a half": 0.5, "one half": 0.5, "quarter": 0.25, "a quarter": 0.25}.get(
        text, _foreign().get(unaccented(text.replace("-", " ")))
    )


def only_number(text: str) -> float | None:
    """The only number in a short text: "1,200", "about 12 cars", "twelve"; None where there is none, or two.

    Lower case. Codes, times and dates are no numbers ("KA-01", "12:30"), and a bound is none ("more than 5").
    """
    if (whole := value(text)) is not None:
        return whole
    if BOUND.search(text):
        return None
    text = _SPACED.sub(lambda match: match[0].replace(" ", ""), _MEASURED.sub(r" \1 ", in_digits(text)))
    found = [_of_stretch(stretch) for stretch in _NUMERIC.findall(text)]
    words = [_of_numerals(w) if _CHINESE.fullmatch(w) else _spoken().get(w) for w in re.findall(r"[^\W\d_]+", text)]
    found += [number for number in words if number is not None]
    if len(found) == 2 and "(" in text and found[0] == found[1]:  # "14 (fourteen)"
        return found[0]
    return found[0] if len(found) == 1 else None


def in_digits(text: str) -> str:
    """English numbers in words as digits: "twenty-one dogs" is "21 dogs", "half a dozen" 6. Lower case."""
    text = _HALF_A.sub(lambda match: f"{_SCALES[match[1]] / 2:.12g}", text)
    text = _PART.sub(lambda match: "1/2" if match[1] else "2/3" if match[2] in ("two", "2") else "1/3", text)
    text = _AND_HALF.sub(r"\1.5", text)
    text = _SCALED.sub(lambda match: f"{float(match[1].replace(',', '')) * _SCALES[match[2]]:.15g}", text)
    return _SEQUENCE.sub(_digits_of, text)


def ascii_digits(text: str) -> str:
    """The decimal digits of every script as 0 to 9."""
    return "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in text)


def unaccented(text: str) -> str:
    """Latin words of four letters or more without their accents: "café" is "cafe", but "É" is not "E"."""
    return text if text.isascii() else " ".join(_bare(word) if len(word) > 3 else word for word in text.split(" "))


def _bare(word: str) -> str:
    parts = unicodedata.normalize("NFD", word)
    if not all("LATIN" in unicodedata.name(sign, "") for sign in parts if sign.isalpha()):
        return word
    return "".join(sign for sign in parts if not unicodedata.combining(sign))


def _digits_of(match: re.Match[str]) -> str:
    number = _of_words(match[0])
    if number is not None:
        return f"{number:g}" if number < 1e6 else f"{number:.0f}"
    return re.sub(rf"\b(?:{_ONES})\b", lambda word: f"{_ENGLISH[word[0]]:g}", match[0])


def _of_words(text: str) -> float | None:
    """One number that is said in English; None for several in a row ("one two")."""
    words = re.sub(r"\band\sa\shalf$", "", text)
    total, part, last = 0.0, 0.0, float("inf")
    for word in re.split(r"[\s-]+", words.strip()):
        if word in ("a", "an", "and"):
            continue
        if word in _SCALES:
            part, last = max(part, 1.0) * _SCALES[word], _SCALES[word]
            if _SCALES[word] >= 1e3:
                total, part = total + part, 0.0
            continue
        size = _ENGLISH[word]
        tens = last < 100 and last >= 20 and last % 10 == 0
        if last != float("inf") and (size == 0 or (last < 100 and not (tens and size <= 9))):
            return None
        part, last = part + size, size
    return total + part + (0.5 if words != text else 0.0)


def _of_stretch(stretch: str) -> float | None:
    """The number in a stretch of digits and signs; None for a code, a time or a date, which still counts as one."""
    bare = _UNIT_END.sub("", stretch.strip(".,:'").lstrip("$€£¥#~≈")).strip("$€£¥%°")
    return value(bare) if _PLAIN.fullmatch(bare) or _FRACTION.fullmatch(bare) else None


def _of_numerals(text: str) -> float | None:
    """A number in Chinese numerals, such as 三十五; a row of digits such as 二〇 is read as one."""
    if not set(text) & set("十百千万"):
        return float("".join(f"{unicodedata.numeric(sign, 2):g}" for sign in text))
    total, part, digit = 0.0, 0.0, 0.0
    for sign in text:
        number = unicodedata.numeric(sign, 2)
        if number >= 10_000:
            total, part, digit = (total + part + digit) * number, 0.0, 0.0
        elif number >= 10:
            part, digit = part + max(digit, 1.0) * number, 0.0
        else:
            digit = number
    return total + part + digit


@lru_cache(1)
def _foreign() -> dict[str, float]:
    """Whole numbers in words, by word, in other languages than English."""
    known: dict[str, float] = {}
    for ones, tens, joins in _LANGUAGES:
        first = ones.split()
        known |= {word: float(number) for number, word in reversed([*enumerate(first)])}
        for place, ten in enumerate(tens.split(), start=2):
            known[ten] = known[ten.rstrip("s")] = 10.0 * place
            for one, word in enumerate(first[1:], start=1):
                if one > 9 and not ten.startswith(("soixante", "quatre")):
                    break
                for join in joins:
                    short = "ein" if word == "eins" else word
                    stem = ten[:-1] if join == "{ten}{one}" and word[0] in "uo" else ten.rstrip("s")
                    if not join.startswith("veinti") or place == 2:
                        known.setdefault(join.format(ten=stem, one=short), 10.0 * place + one)
    return {unaccented(word.casefold().replace("-", " ")): number for word, number in known.items()}


@lru_cache(1)
def _spoken() -> dict[str, float]:
    """Those words of other languages that mean nothing but a number, in a sentence too."""
    return {word: number for word, number in _foreign().items() if word not in _OTHERWISE and len(word) > 2}
