"""How answers are announced, denied and hedged, in the languages that models slip into."""

import re


def any_of(phrases: str) -> str:
    """A pattern for any of these phrases, which are separated by commas; apostrophes may be of either kind."""
    parts = sorted((phrase.strip() for phrase in phrases.split(",")), key=len, reverse=True)
    return "(?:" + "|".join(parts).replace(" ", r"\s").replace("’", "'").replace("'", "['’]") + ")"


_ENGLISH = rf"\b{any_of('answer, ans, option, choice, letter, guess, pick, selection, verdict, conclusion')}\b"
_FOREIGN = any_of(
    "antwort, lösung, auswahl, buchstabe, réponse, reponse, choix, lettre, respuesta, opción, opcion, alternativa, "
    "letra, resposta, opção, risposta, opzione, scelta, lettera, antwoord, optie, keuze, svaret, svar, vastaus, "
    "odpowiedź, odpowiedzią, odpověď, ответ, ответом, вариант, вариантом, відповідь, cevap, yanıt, seçenek, "
    "jawaban, jawabannya, jawapan, đáp án, câu trả lời, απάντηση, उत्तर, जवाब, विकल्प, الإجابة, الجواب, الاجابة, "
    "الخيار, جواب, گزینه, תשובה, התשובה, odpoveď, válasz, răspuns, răspunsul, "
    "отговор, отговорът, отговора, odgovor, atsakymas, atbilde, vastus, alternativ, alternativet, vaihtoehto, উত্তর, "
    "ಉತ್ತರ, જવાબ, ઉત્તર, ਜਵਾਬ, ਉੱਤਰ, پاسخ"
)
# where a word ends is not seen
_EASTERN = "答案|选项|選項|正解|答え|回答|解答|選択肢|정답|답변|답|คำตอบ|பதில்|விடை|సమాధానం|ഉത്തരം"
FOREIGN = rf"(?:\b{_FOREIGN}\b|{_EASTERN})"
NOUN = rf"(?:{_ENGLISH}|{FOREIGN})"
_SURELY = (
    r"(?:\s(?-i:clearly|definitely|certainly|obviously|probably|likely|most\slikely|thus|therefore|hence|then|indeed|simply|"
    r"still|now|also|only|actually|wahrscheinlich|daher|donc|probablement|entonces|portanto|dunque|dus))?"
)
_IS = (
    r"(?:(?:is|was|(?:would|should|must|might|could|will|can\sonly|has\sto)\sbe|(?:seems|appears)\sto\sbe)\b"
    rf"{_SURELY}|'s\b)"
)
_IST = (
    r"(?:\b(?:ist|lautet|wäre|est|serait|es|sería|seria|sarebbe|er|är|on|to|jest|je|is|adalah|ialah|là|είναι|это|есть|هي|هو|"
    rf"है)\b|\b[éè](?=\s)){_SURELY}"
)
_MARK = r"(?:[:=：]|[-–—]+>?\s|→|⇒)"
# A little may stand between the noun and its verb: "the answer to the question is", "la respuesta correcta es".
_BETWEEN = r"(?:\s\(?[^\W\d]{1,15}['’]?\)?){0,6}?\s{0,3}"
_SAYS = rf"(?:{_ENGLISH}{_BETWEEN}(?:{_IS}|(?={_MARK}))|{FOREIGN}{_BETWEEN}(?:{_IST}|(?={_MARK})))\s{{0,3}}{_MARK}?"
# "The answer is …": what follows may be any text.
SAID = re.compile(
    rf"{_SAYS}|\b(?:total|count)\s{{0,3}}(?:is\b|[:=])(?=\s{{0,3}}\d)"
    rf"|(?:{_EASTERN})\s{{0,3}}(?:应该|應該|应当|就|可能)?(?:是|为|為|は|が|選|选|은|는|이|가)"
    r"|(?:^|\n)\W{0,5}(?:(?:final|correct|my)\s)?(?:answer|solution|conclusion|result)\W{0,3}\n",
    re.IGNORECASE,
)
REST = re.compile(r"\s{0,3}([^\n]{1,200})")
# What may stand before an option or answer: "Option B", "the correct answer is (B)", "la D".
_THE = r"(?:the|my|la|le|el|die|der|das|de|het|a|o|il|l['’])"
LEAD = re.compile(
    rf"(?i:(?:\W?(?:so|thus|hence|therefore|clearly|okay)[,:]?\s)?(?:{_THE}\s?)?(?:(?:correct|right|final|best|most\slikely|only|"
    rf"richtige|correcte|bonne|juiste|chosen|selected)\s)?(?:{_SAYS}|{NOUN}{_SURELY})\s{{0,3}}(?:{NOUN}\s{{0,3}}[:：]?\s{{0,3}})?)"
    r"(?=\S)|(?:(?i:(?:es|est|é|è|ist|is|c['’]est)\s)?(?i:la|le|el|die|der|das|de|het|the|it\sis|it['’]s)|a|o)\s"
    r"(?=[\"'‘“(\[]?[A-Z][\"'’”)\]]?\W{0,3}$)"
)
# Behind these, in the same clause, what is said is denied …
DENIED = re.compile(
    r"\b(?:not|neither|nor|none|no\sway|never|(?<!no\s)(?<!without\sa\s)doubt|cannot)\b|n['’]t\b|"
    r"\b(?:incorrect|wrong|false|impossible|unlikely|ruled\sout|rule\sout|excluded|eliminated|discarded|(?:is|are)\sout)\b|"
    r"\b(?:rather\sthan|instead\sof|unlike|except|(?:any|every)thing\s(?:but|except)|all\sbut|far\sfrom|opposite\sof|nothing\slike|lacks)\b|"
    r"\b(?:nicht|kein\w*|weder|pas|jamais|no\s(?:es|era|fue|puede|ser\w+|parece|creo|sé|está|debe)|não|non|niet|geen|inte|ikke|"
    r"ei|nie|ni|nem|né|není|nu|не|ні|нет|ни|tidak|bukan|değil|không|δεν|όχι|nije|nisu|nėra|nav)\b|"
    # … or is called wrong
    r"\b(?:falsch\w*|fauss\w+|(?<=est\s)faux|incorrect\w+|errad[ao]|equivocad[ao]|sbagliat[ao]|errat[ao]|fout|onjuist|fel|feil|forkert|"
    r"väär\w+|błędn\w+|špatn\w+|nesprávn\w+|неверн\w+|невірн\w+|неправильн\w+|yanlış|(?<=\b[A-Z]\s)salah|sai|helytelen|rossz|greșit\w*|грешн\w+|грешен|"
    r"pogrešn\w+|pogrešan|netoč\w+|napač\w+|λάθος|λανθασμέν\w+)\b|\A\ssalah\b|"
    r"不|没|無|错|錯|誤|違|な[いく]|ません|नहीं|नाही|गलत|चूक|चुक|নয়|না|ভুল|இல்லை|அல்ல|தவறு|కాదు|తప్పు|ಅಲ್ಲ|ತಪ್ಪು|അല്ല|തെറ്റ്|નથી|ખોટ|ਨਹੀਂ|ਗਲਤ|"
    r"이\s?틀|가\s?틀|은\s?틀|는\s?틀|오답|아니|아닌|아닙|아님|않|ไม่|ผิด|"
    r"ليس|غير|خطأ|خاطئ|نیست|نہیں|غلط|לא|אינ[הו]|אין|שגוי",
    re.IGNORECASE,
)
# … or left open.
VOID = re.compile(rf"\b(?:whether|which\sof|either|or)\b|{DENIED.pattern}", re.IGNORECASE)
# What is supposed, somebody else's view, or a first guess.
SUPPOSED = re.compile(
    r"\b(?:suppose|assum\w+|imagine|tempt\w+|least|worst|second[\s-]best|unless|would\shave|obvious\sanswer|"
    r"(?:initial|first)\s(?:guess|thought|impression|answer)|at\sfirst|initially|claims?|"
    r"(?:some|many|one|people|you)(?:\speople)?\s(?:might|may|could|would)|"
    r"(?:check|verify|confirm|see|know|determine|decide|sure|certain|say|tell)\sif|"
    r"(?:let\sme|to(?:\sbe)?)\s(?:check|verify|confirm|see|say|sure|certain)\sthat|it\sis\swrong\sto)\b"
    r"|(?:^|\W)if\s(?!I\b|we\b|you\b)",
    re.IGNORECASE,
)
# Beside "would": in another world than this.
HYPOTHETICAL = re.compile(r"\b(?:if(?!\s(?:I|we|you)\b)|without|otherwise|normally|were)\b", re.IGNORECASE)
# Where a clause ends; the commas of "A, B or C" and ", nor" are within one.
CLAUSE = re.compile(
    r"[.!?;:\n—。；：]|,(?!\s{0,3}(?:n?or\b|\(?[A-Z]\)?\s{0,3}(?:,|n?or\b|and\b)))|[，、]"
    r"|\b(?:so|(?<!thing\s)but|then|hence|thus|therefore|because|since|sondern|aber|mais|sino|pero|mas|maar)\b"
    r"|而是|而应|(?<=ではなく)|(?<=아니라)|(?<=아닌)"
    r"|\b(?:incorrect|wrong|false|excluded)\sand\b"
)
# Behind these nothing is sure in a statement.
HEDGE = re.compile(
    r"\b(?:not|no|nor|or|never|cannot|if|either|neither|whether|might|may|maybe|perhaps|unable|without|except|nicht|kein\w*|"
    r"oder|pas|ni|não|niet|geen)\b|n['’]t|\?|[\[{]",
    re.IGNORECASE,
)
# What a statement adds on what is not so: "…, not a dog", "not a dog but …", "it looks like a dog, but it is …"
CONTRAST = re.compile(
    r"(?:,\s(?:(?:and|but)\s)?not|\s(?:but\snot|rather\sthan|instead\sof))\s[^,.;!?\n]{1,60}(?=[.!]?$)"
    r"|\bnot\s(?!only\b|just\b)[^,.;!?\n]{1,40},?\sbut\s(?:rather\s)?"
    r"|[^\s,.;!?，。、]{1,40}(?:ではなくて?、?|[이가]\s?아니라\s|[이가]\s?아닌\s)"
    r"|^[^.;!?\n]{0,40}\b(?:thought|looks|looked|seems|seemed)\b[^.;!?\n]{1,40}\sbut\s(?=(?:it|that)(?:['’]s|\sis)\s)",
    re.IGNORECASE,
)
# What is about to be done, or asked, is no answer.
INTENT = re.compile(
    r"\b(?:let\s(?:me|us)|let['’]s|(?:I|we)(?:['’]ll|\s(?:will|should|need\sto|must|want\sto))|(?:['’]d|would)\slike\sto|"
    r"(?:I['’]m|I\sam)\slooking\s(?:at|for)|now\s\w+ing|question\s(?:asks?|is)\sabout|I\sexpected|used\sto|could\sbe)\b",
    re.IGNORECASE,
)
OPENS_A_STEP = re.compile(r"\W{0,3}(?:zoom(?:ing)?|crop(?:ping)?|look(?:ing)?|examin\w+)\s", re.IGNORECASE)
# The same in a reply that is nothing else.
STEP = re.compile(
    r"\b(?:(?:I|we)(?:['’]ll|\s(?:will|should))\s(?:zoom|crop|look|count|check|examine|divide|split|take)\b|^zoom(?:ing)?\sin\b"
    r"|^step\s\d)",
    re.IGNORECASE,
)
# Single words that commit to nothing.
NOTHING = {
    "unknown", "unclear", "none", "sorry", "many", "several", "maybe", "unsure", "n/a", "na", "some", "few", "perhaps",
    "undetermined", "null", "idk", "unbekannt", "inconnu", "desconocido", "不知道", "未知", "无法判断",
}  # fmt: skip
# Sentences that commit to nothing; boxes, ranges and markup.
SILENT = re.compile(
    r"\b(?:i|we|you)\s(?:can(?:not|['’]?t)|could\s?n['’]?t|do\s?n['’]?t|am\s(?:not|unable)|will\snot|wo?n['’]t|wonder|need|"
    r"would\sneed|have\sno)\b|\b(?:i['’]m|i\sam|we['’]re)\s(?:not|unable|sorry|unsure)\b|\bsorry\b|\bunable\sto\b|\bas\san\sai\b|"
    r"\blet\s(?:me|us)\b|\bnot\s(?:sure|clear|certain|enough|possible|visible|able)\b|\bno\s(?:idea|answer)\b|"
    r"\b(?:hard|difficult|impossible|too\s\w+)\sto\s(?:say|tell|see|read|count|know|determine|decide|make)\b|"
    r"\b(?:cannot|can['’]t)\s(?:be|say|tell|see|read|determine|answer)\b|\b(?:might|may|could)\s(?:be|have)\b|"
    r"\b(?:maybe|perhaps|depends)\b|\bbetween\s\d+\sand\s\d+|^\(?\d{1,3}\s?[-–~]\s?\d{1,3}\)?$|\bgive\sor\stake\b|\byes\sor\sno\b|"
    r"无法|看不清|不确定|わかりません|읽을 수 없|[{}]|!\[|\]\(|\)\s?,\s?\(|<\||\|>|<box|"
    r"\b(?:[xy]_?1|[xy]_?min|left|top)\s?[:=]|[\[(]\s?-?[\d.]{1,20}(?:[\s,\])(\[]{1,6}-?[\d.]{1,20}){3}\s?[\])]",
    re.IGNORECASE,
)
