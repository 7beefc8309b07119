import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgpo.answers import choice_letter, extract, find_number, is_right, normalise, vote_of

CHOICES = ("red", "blue", "a green car", "none of these")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"\boxed{K}", "K"),
        (r"First \boxed{A}, no: \boxed{B}.", "B"),
        (r"\boxed{\text{two}}", r"\text{two}"),
        (r"\boxed{A} and \boxed{unfinished", "A"),
        ("<answer> 12 </answer>", "12"),
        ("So the answer is (B).", "(B)"),
        ("Answer: seven\nbecause", "seven"),
        ("B", "B"),
        ("(C).", "C"),
        ("Based on the picture, it is hard to say.", None),
        ("", None),
        (r"\boxed{}", None),
    ],
)
def test_the_last_commitment(reply, answer):
    assert extract(reply) == answer


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B. blue", "B"),
        ("blue", "B"),
        ("A green car", "C"),
        ("A dog", None),
        ("A because it is red", "A"),
        ("B blue or so", "B"),
        ("A, of course", "A"),
        ("E", None),
        ("Based on", None),
    ],
)
def test_choices(answer, letter):
    assert choice_letter(answer, CHOICES) == letter


@pytest.mark.parametrize(
    ("answer", "choices", "letter"),
    [("B because the sky is dark", ("It is cloudy", "It is rainy", "The sky is dark"), "B"),
     ("B - 1", ("1", "-1"), "B"),
     ("A since neither", ("red", "blue", "neither"), "A"), ("A, right?", ("left", "right"), "A"),
     ("3 am Tisch", ("2", "3"), "B"), ("150 pm", ("150", "200"), "A")],
)  # fmt: skip
def test_a_letter_may_give_its_reason(answer, choices, letter):
    assert choice_letter(answer, choices) == letter


@pytest.mark.parametrize("answer", ["B: red", "B. Red", "(B) red", "A - blue", "C: none of these"])
def test_a_letter_with_the_text_of_another_option_picks_neither(answer):
    assert choice_letter(answer, CHOICES) is None
    assert not is_right(answer, answer.strip("(")[0], CHOICES)


@pytest.mark.parametrize(
    ("answer", "letter"), [("E", "E"), ("(a)", "A"), ("C.", "C"), ("K", "B"), ("A. E", "A"), ("(C) A", "C")]
)
def test_a_letter_alone_is_an_option_even_where_it_is_the_text_of_another(answer, letter):
    assert choice_letter(answer, ("E", "K", "A", "C", "none of these")) == letter


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [("k", "K", True), ("7.0", "7", True), ("1,200", "1200", True), (None, "K", False), ("seven", "7", True),
     (r"\text{KP}", "kp", True), ("K P", "KP", False), ("inf", "K", False),
     ("1,2", "12", False), ("1,234,567", "1234567", True), ("3,4", "34", False)],
)  # fmt: skip
def test_short_answers(answer, truth, right):
    assert is_right(answer, truth) is right


@pytest.mark.parametrize("answer", ["", " ", "red", "A"])
def test_where_nothing_is_known_to_be_right_nothing_is(answer):
    assert not is_right(answer, "") and not is_right(answer, "", ("red", "blue"))


def test_an_option_is_right_by_letter_or_text():
    assert is_right("(B)", "B", CHOICES)
    assert is_right("blue", "B", CHOICES)
    assert not is_right("red", "B", CHOICES)


@given(st.text(max_size=500))
def test_nothing_raises(text):
    answer = extract(text)
    is_right(answer, "7")
    is_right(answer, "B", CHOICES)
    normalise(text)


def test_long_replies_take_no_time():
    assert extract("\\boxed{" * 20_000) is None


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"\boxed{A}. No, wait: the answer is (B).", "(B)"),
        (r"\boxed{B}. The answer is clear.", "B"),
        (r"The answer is \boxed{C}", "C"),
        (r"<answer>A</answer>, so \boxed{D}", "D"),
        (r"\boxed{D} <answer>A</answer>", "A"),
        (r"The answer is seven. The answer is based on the sign.", "based on the sign"),
        ("The answer is B.\nThe answer is based on the sign.", "B"),
        (r"\boxed{7} and the answer is 8.", "8"),
    ],
)
def test_what_comes_last_counts(reply, answer):
    assert extract(reply) == answer


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        (r"\(B\)", "B"), (r"\boxed{B - blue}", "B"), (r"\boxed{B \text{ blue}}", "B"), (r"\boxed{A\ red}", "A"),
        (r"\boxed{A - red}", "A"), (r"\boxed{A \text{ red}}", "A"), (r"\boxed{The answer is B}", "B"),
        (r"\boxed{\mathbf{B}}", "B"), (r"\boxed{\textbf{(B) blue}}", "B"), (r"$\boxed{\text{Option B}}$", "B"),
        (r"\boxed{\text{\textbf{B}}}", "B"), (r"\[B\]", "B"), (r"$B$", "B"),
        (r"\boxed{B\quad blue}", "B"), (r"\boxed{{B}}", "B"), (r"\boxed{B — blue}", "B"),
        (r"\boxed{A \text{ dog}}", None),
        (r"\boxed{A \text{ or } B}", None), (r"\boxed{\text{The answer is not } B}", None),
    ],
)  # fmt: skip
def test_latex_around_an_option(reply, letter):
    assert given_letter(extract(reply, CHOICES), CHOICES) == letter


def given_letter(answer, choices):
    return None if answer is None else choice_letter(answer, choices)


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        (r"\frac{1}{2}", "0.5"), (r"\dfrac12", "1/2"), (r"1\frac{1}{2}", "1.5"), ("½", "0.5"), (r"45^\circ", "45°"),
        (r"25\%", "25 percent"), (r"10{,}000", "10000"), (r"10\,000", "10000"), ("0,5", "1/2"), ("2,50 kg", "2.5 kg"),
        ("€4,99", "€4.99"), ("1.200,50 €", "€1200.50"), ("KX-52LMN", "KX52 LMN"), ("on Elm St.", "Elm Street"),
        (r"\$1,299", "$1299.00"),
        ("twenty-one", "21"), ("two hundred and five", "205"), ("1.5 million", "1500000"), ("drei", "3"),
        ("quatre-vingt-dix", "90"), ("veintidós", "22"), ("einundzwanzig", "21"), ("三十五", "35"), ("३", "3"),
        ("5 kilometres", "5 km"), ("25mph", "25 miles per hour"), ("3 p.m.", "15:00"), ("half past three", "3:30"),
        ("5 May 2020", "May 5th, 2020"), ("2020-05-05", "5 May 2020"), ("Main St.", "main street"),
        ("St. Mary", "Saint Mary"),
        ("a dog", "dog"), ("The Shining", "shining"), ("ＥＸＩＴ！", "exit"), ("“Café”", "cafe"), ("grey", "gray"),
        ("2½", "2.5"), ("2½ hours", "2.5 hours"), ("about 2½", "2.5"), ("$2½", "$2.50"), ("2.5×10⁻³", "0.0025"),
        ("5 cm³", "5 cm^3"), ("two and a half million", "2,500,000"), ("one and a half dozen", "18"),
        ("1,200 million", "1200000000"), ("two half circles", "2"), ("one half circle", "1"),
        ("one third of them", "1/3"),
        ("Gate 12 Ft. Lauderdale", "Gate 12 Fort Lauderdale"), ("2½ miles", "2 1/2 miles"), ("5²", "5^2"),
        ("half a dozen", "6"), ("half a million", "500000"),
        ("one half", "0.5"), ("2 and a half", "2.5"), ("two and a half", "2.5"), ("a quarter", "0.25"),
        ("two thirds", "2/3"), ("No one.", "0"), ("There is no one.", "0"), ("no-one", "nobody"),
        ("10 - 15", "10-15"), ("2019 – 2024", "2019-2024"), ("9:00 - 17:00", "9:00-17:00"), ("9 am - 5 pm", "9am-5pm"),
        ("9 a.m. – 5 p.m.", "9am-5pm"), ("555 - 1234", "555-1234"), ("Rome - Oslo", "Rome-Oslo"), ("1 : 2", "1:2"),
        ("Smith , John", "Smith, John"), ("12 cars", "12"), ("no dots", "0"), ("U.S.A.", "USA"), ("Ja", "yes"),
        ("T-shirt", "t shirt"),
        ("yes", "ja"), ("Ja.", "ja"), ("Sí, hay un perro", "Sí"), ("是的", "是"), ("Нет", "нет"), ("keine", "0"),
        ("31.12.2021", "31 December 2021"), ("12/31/2021", "31/12/2021"), ("3. März 2021", "2021-03-03"),
        ("1er mai 2020", "1 May 2020"), ("4 de julio de 2019", "July 4, 2019"), ("2021年3月3日", "3 March 2021"),
        ("05.12.2020", "5 Dec. 2020"), ("15 Uhr 30", "15:30"), ("3.30 pm", "15:30"), ("12,5 Prozent", "12.5 %"),
    ],
)  # fmt: skip
def test_what_means_the_same(answer, truth):
    assert is_right(answer, truth)
    assert vote_of(answer) == vote_of(truth)


@pytest.mark.parametrize(
    ("answer", "truth"),
    [("5 m", "5 km"), ("5", "5 km"), ("007", "7"), ("B2", "2"), ("COVID-19", "19"), ("12:30", "12"), ("3 am", "3 pm"),
     ("more than 5", "5"), ("5 or 6", "5"), ("1 of 2", "1"), ("-5", "5"), ("12/05/2020", "05/12/2020"),
     ("12/05/2020", "5 December 2020"), ("32.12.2021", "31.12.2021"), ("3.30", "3:30 pm"), ("Ja", "nein"), ("no", "ja"),
     ("yes", "Si"),
     ("E", "É"),
     ("no parking", "no"), ("not red", "red"), ("red and blue", "red"), ("Elm Ave", "Elm St"),
     ("first", "1"), ("5th", "5"), ("1, 2", "1.2"), ("(1,2)", "1.2"), ("1,500", "1.5"),
     ("On Sale", "Sale"), ("$5M", "$5"), ("$5 per hour", "$5 per day"), ("before 9:15", "9:15"),
     ("not A12", "A12"), ("3 of A12", "A12"), ("under 5 kg", "5 kg"), ("Eiffel Tower", "el Tower"), ("$5", "€5"),
     ("yes and no", "yes"), ("No one", "1"), ("There is no one.", "1"), ("2½", "10.5"), ("5²", "52"), ("> 5", "5"),
     ("> $5", "$5"), ("> five", "5"),
     ("two half circles", "1"),
     ("5", "> 5"), ("half a dozen", "12"), ("half a million", "1000000"), ("one half", "1"), ("2 and a half", "2"),
     ("two thirds", "2"), ("10 - 15", "10"), ("10 - 15", "1015"), ("9 am - 5 pm", "9 am"), ("1 : 2", "1"),
     ("7 - 5", "2"), ("3 2i", "3 - 2i"), ("3 5", "3 -5"), ("0 1", "0 -1"), ("x = - 5", "5")],
)  # fmt: skip
def test_what_does_not_mean_the_same(answer, truth):
    assert not is_right(answer, truth)


def test_options_that_differ_in_case_or_article_alone_are_told_apart_or_left_open():
    assert choice_letter("STOP", ("Stop", "STOP", "stop")) == "B"
    assert choice_letter("sToP", ("Stop", "STOP", "stop")) is None


@pytest.mark.parametrize("truth", ["A", "C"])
@pytest.mark.parametrize("answer", ["A", "C", "red", "Red.", "(C) red"])
def test_two_options_of_the_same_text_are_the_same_answer(answer, truth):
    choices = ("red", "blue", "red")
    assert is_right(answer, truth, choices) and vote_of(answer, choices) == "A"
    assert not is_right(answer, "B", choices) and not is_right("blue", truth, choices)
    assert is_right("3 cars", truth, ("3", "4", "3")) and not is_right("4 cars", truth, ("3", "4", "3"))


@pytest.mark.parametrize(
    ("text", "number"), [("cent", None), ("zwölf Boote", 12), ("图中有三辆车", 3), ("第三", None), ("KA-01-1234", None),
                         ("two dogs and 1 cat", None), ("14 (fourteen)", 14), ("a hundred", 100), ("5 km/h", 5)]
)  # fmt: skip
def test_the_only_number_in_any_language(text, number):
    assert find_number(text) == number


@given(st.integers(0, 99))
def test_number_words_are_read_back(number):
    """Tens and ones as German and Chinese join them, and digits."""
    ones = ["null", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
    tens = ["zehn", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
    if number % 10 and number > 20:
        assert find_number(f"{ones[number % 10]}und{tens[number // 10 - 1]}") == number
    assert find_number(f"{number:,}") == number
    digits = "〇一二三四五六七八九"
    if number > 19:
        assert find_number(f"{digits[number // 10]}十{digits[number % 10] if number % 10 else ''}") == number


@pytest.mark.parametrize(
    ("answer", "truth"),
    [("6 m tall", "6 m"), ("about 6 ft tall", "6 ft"), ("The tower is 300 m high.", "300 m"), ("It's 5 m wide", "5 m"),
     ("5 km away", "5 km"), ("20 years old", "20")],
)  # fmt: skip
def test_a_measure_may_say_of_what_it_is(answer, truth):
    assert is_right(extract(answer, (), truth), truth)
    if " m " in answer:
        assert not is_right(extract(other := answer.replace(" m ", " km "), (), truth) or other, truth)


def test_nobody_is_no_option_of_one():
    for reply in ("No one", "There is no one."):
        assert choice_letter(reply, ("0", "1", "2")) is None and is_right(reply, "0")


@pytest.mark.parametrize("truths", [("not visible", "unknown"), ("Closed", "Sorry, we're closed"), ("n", "10 to 12")])
def test_any_of_several_truths_is_an_answer_as_it_stands(truths):
    for truth in truths:
        assert extract(truth, (), *truths) == truth
    assert extract("Based on the picture, it is hard to say.", (), *truths) is None


@pytest.mark.parametrize(
    ("reply", "truth"),
    [("Yes, a dog is looking at the ball.", "yes"), ("Yes, the crop shows a dog.", "yes"),
     ("No, looking closer, there is no dog.", "no"), ("No, nobody is looking at the camera.", "no"),
     ("No, actually there is no dog here.", "no"), ("After zooming in, there are 5 dogs.", "5"),
     ("- 12 cars", "12 cars"), ("There is no dog in the picture.", "no"), ("x = - 5", "-5")],
)  # fmt: skip
def test_ordinary_words_are_no_intents(reply, truth):
    assert is_right(extract(reply, (), truth) or "", truth)


@pytest.mark.parametrize(
    ("reply", "truth"),
    [("There is no doubt that there is a dog.", "no"), ("There are no cats, but there is a dog.", "no"),
     ("There are no people except one man on the left.", "no"), ("No. 12", "no")],
)  # fmt: skip
def test_no_at_the_beginning_is_not_always_no(reply, truth):
    assert not is_right(extract(reply, (), truth) or reply, truth)


@pytest.mark.parametrize(
    ("reply", "choices", "letter"),
    [("We can see that the correct answer is B.", CHOICES, "B"), ("I am certain that the answer is B.", CHOICES, "B"),
     ("The answer I get is B.", CHOICES, "B"), ("It is not \\boxed{A}, so the answer is (B).", CHOICES, "B"),
     ("The maximum speed is 50.", ("30", "50", "70"), "B"), ("B. blue - not red", CHOICES, "B"),
     ("The year with the most sales is 2015.", ("2013", "2014", "2015"), "C"),
     ("There are 3 people in the crop.", ("2", "3", "4"), "B")],
)  # fmt: skip
def test_what_is_plain_stays_an_option(reply, choices, letter):
    assert choice_letter(extract(reply, choices) or "", choices) == letter
    if "answer" in reply:
        reply = "The picture shows a street with several cars and people on both of its sides. " * 2 + reply
        assert choice_letter(extract(reply, choices) or "", choices) == letter
