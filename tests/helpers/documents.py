"""The documents as a reader takes them: their blocks, the commands in these, their sections and their links."""

import re

from tests.test_cli import ROOT

SITE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in [*ROOT.glob("*.md"), *SITE]}
PROGRAMS = {
    "python", "mgpo", "pip", "pipx", "mkdocs", "docker", "torchrun", "sbatch", "srun", "vllm", "lmms-eval", "pytest",
    "pre-commit", "eval", ".ci/run", ".ci/vllm",
}  # fmt: skip


def blocks(text):
    """(language, code) of each fenced or indented block."""
    for fenced, language, code, indented in re.findall(
        r"^(```+)(\w*)\n(.*?)^\1$|((?:^ {4}[^\n]+\n)+)", text, re.MULTILINE | re.DOTALL
    ):
        yield (language, code) if fenced else ("", re.sub(r"^ {4}", "", indented, flags=re.MULTILINE))


def commands(text):
    """Command lines in blocks, and those in the text that begin with python, without comments."""
    found = re.findall(r"`(python -m [^`…]+)`", text.replace("\n", " "))
    for language, code in blocks(text):
        lines = [re.sub(r"\s+# .*", "", line) for line in code.replace("\\\n", " ").splitlines()]
        lines = re.findall(r'(?:[^"\n]|"[^"]*")+', "\n".join(lines))  # a quoted text may go on in the next line
        found += [line for line in lines if language in ("", "bash", "sh", "console")]
    return [part for line in found for part in line.split(" && ") if part.split()[0] in PROGRAMS]


def sections(text):
    return re.split(r"^#+ ", text, flags=re.MULTILINE)


def links(page):
    """(page or file, anchor) of every relative link, from the repository's root."""
    text = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)\s#]*)#?([^)\s]*)\)", text):
        place = (ROOT / page).parent / target if target else ROOT / page
        yield str(place.resolve().relative_to(ROOT)), anchor


def anchors(page):
    headings = re.findall(r"^#+ (.*)", PAGES[page], re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
