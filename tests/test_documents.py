"""What the documents say can be done: commands parse, Python runs, names, keys, paths and links lead somewhere."""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
import shlex
import tomllib
from contextlib import nullcontext
from functools import cache

import jsonargparse
import pytest
import yaml
from lightning.pytorch import Trainer
from PIL import Image

import mgpo
from mgpo.cli import answered_at_once, with_named_configs
from mgpo.commands.command_table import PARSED, resolve
from mgpo.commands.dry_runs import DataCLI, PlanCLI
from mgpo.commands.execute import run
from mgpo.commands.keys import check_arguments
from mgpo.commands.trainer_cli import CLI
from mgpo.objective import Objective
from mgpo.tools.overview.command import arguments as of_data
from tests.helpers.documents import PAGES, SITE, anchors, blocks, commands, links, sections
from tests.test_cli import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# What is neither parsed nor run here: how it begins, and why.
LEFT_OUT = {
    "pip install vllm": "the real engine has an environment of its own, .ci/vllm",
    "vllm serve": "the same",
    "lmms-eval": "not installed here; tests/inference/test_lmms_eval.py calls what it calls",
    "pipx run pip-audit": "needs the network",
    "pre-commit install": "writes into .git; its hooks are what the gate runs",
    "eval": "for the user's shell; it calls the same parser",
    "mkdocs": "the gate builds the site",
}
# What nobody has run as it stands, so that its section has to say so; `plan` was.
NOBODY = re.compile(
    r"(?!.* plan )(?=.*(qwen2_5_vl|_7b|eval\.yaml|leaks\.yaml|sbatch|torchrun|lmms-eval|"
    r"vllm==|pip-audit))"
)
SERVED = "localhost:8000"  # Python that asks a server: tests/inference/test_served.py has one
COMMANDS_IN_PAGES = [(page, command) for page, text in PAGES.items() for command in commands(text)]


class Parsing(CLI):
    """Reads its arguments and builds nothing."""

    def before_instantiate_classes(self):
        pass

    instantiate_classes = _set_seed = before_instantiate_classes

    def _run_subcommand(self, subcommand):
        pass


class ParsingPlan(Parsing, PlanCLI):
    pass


class ParsingData(Parsing, DataCLI):
    pass


# Which take the keys of `fit` and no command of Lightning's.
ALONE = {"data": ParsingData, "plan": ParsingPlan, "doctor": Parsing}


@cache
def parser(command):
    """That of the command line: one for all of Lightning's commands, others have their own."""
    if not isinstance(resolve(command), type):
        return jsonargparse.auto_parser(resolve(command), as_positional=False, exit_on_error=False)
    default = f"--config={ROOT}/configs/mgpo.yaml"
    if command in ALONE:
        return run([default], ALONE[command], run=False).parser
    return run(["fit", default], Parsing).parser


@cache
def parse(command, *arguments):
    if answered_at_once([command, *arguments]):
        return
    arguments = with_named_configs(arguments)
    check_arguments(command, arguments)
    if command in ("validate", "test") and "--config" not in arguments:
        arguments = ["--config", "configs/mgpo.yaml", *arguments]
    if command == "data":
        arguments = of_data(arguments)
    own = command not in PARSED
    leaves = any(argument.endswith((".help", "--print_config")) for argument in arguments)
    with pytest.raises(SystemExit, match=r"^0$") if leaves else nullcontext():
        parser(command if own else "fit").parse_args([*([] if own else [command]), *arguments])


def check(command):
    """Whether a command line could be run, as far as can be told without running it."""
    program, *arguments = shlex.split(command)
    if program in ("torchrun", "mgpo"):
        arguments = arguments[arguments.index("mgpo") + 1 :] if program == "torchrun" else arguments
        parse(*arguments)
    elif program == "sbatch":
        script = next(i for i, argument in enumerate(arguments) if argument.endswith(".sbatch"))
        assert (ROOT / arguments[script]).is_file()
        parse("fit", *arguments[script + 1 :])
    elif (program, *arguments[:2]) == ("python", "-m", "mgpo"):
        parse(*arguments[2:])
    elif (program, *arguments[:1]) == ("python", "-m"):
        home = importlib.util.find_spec(arguments[1]).origin
        sources = "".join(p.read_text() for p in [*(ROOT / "tests/performance").glob("*.py"), ROOT / home])
        assert all(f'"{a}"' in sources for a in re.findall(r"--\w[\w-]*", " ".join(arguments)) if a != "--help")
    elif program == "python":
        imports = [node for node in ast.parse(arguments[1]).body if isinstance(node, ast.ImportFrom)]
        assert all(hasattr(importlib.import_module(n.module), alias.name) for n in imports for alias in n.names)
    elif program == "pip":
        assert set(re.findall(r"\w+", "".join(re.findall(r"\[(.*?)\]", command)))) <= set(EXTRAS)
        assert all((ROOT / arguments[i + 1]).is_file() for i, a in enumerate(arguments) if a == "-c")
    else:
        assert program == "pytest" or (ROOT / program).is_file()
        assert all((ROOT / argument).exists() for argument in arguments if "/" in argument)


@pytest.mark.parametrize("page", sorted({page for page, _ in COMMANDS_IN_PAGES}))
def test_commands_can_be_run(page, monkeypatch, tmp_path):
    """A configuration that they call mine.yaml is the first on the page."""
    monkeypatch.chdir(ROOT)
    wrong, mine = {}, tmp_path / "mine.yaml"
    mine.write_text(next((code for language, code in blocks(PAGES[page]) if language == "yaml"), ""))
    for command in commands(PAGES[page].replace("mine.yaml", str(mine))):
        if not command.startswith(tuple(LEFT_OUT)):
            try:
                check(command)
            except Exception as error:
                wrong[command] = repr(error)[:400]
    assert not wrong


def test_a_command_that_cannot_be_run_is_seen(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = "    python -m mgpo fit \\\n      --config configs/mgpo.yaml --model.no_such_key 1   # a remark\n"
    (command,) = commands(text)
    with pytest.raises(Exception, match="no_such_key"):
        check(command)
    for command in ("python -m mgpo predict --no_such_option 1", "python -m mgpo plan --config configs/none.yaml",
                    "python -m mgpo fit --model.reward mgpo.rewards.NoSuch", "pip install -e '.[none]'",
                    "python -m tests.reliability.kills --none"):  # fmt: skip
        with pytest.raises(Exception):  # noqa: B017
            check(command)


def test_what_is_left_out_is_there():
    texts = [command for _, command in COMMANDS_IN_PAGES]
    assert all(any(text.startswith(start) for text in texts) for start in LEFT_OUT)


def test_what_nobody_has_run_says_so():
    unsaid = [
        (page, command)
        for page, text in PAGES.items()
        for section in sections(text)
        for command in commands(section)
        if NOBODY.match(command) and "not run here" not in " ".join(section.split()).lower()
    ]
    assert not unsaid


PYTHON = [(page, code) for page, text in PAGES.items() for language, code in blocks(text) if language == "python"]


@pytest.mark.filterwarnings("ignore")  # a reader sees them, and goes on
@pytest.mark.parametrize(("page", "code"), [pytest.param(*p, id=f"{p[0]}-{i}") for i, p in enumerate(PYTHON)])
def test_python_runs(page, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (900, 700), "white").save("street.jpg")
    compiled = compile(code, page, "exec")
    if SERVED not in code:
        exec(compiled, {"__name__": page})  # as a reader would


# Files of one's own, my_….py, are run by tests/extending.
YAML = [
    (page, code)
    for page, text in PAGES.items()
    for language, code in blocks(text)
    if language == "yaml" and "my_" not in code
]


@pytest.mark.parametrize(("page", "code"), [pytest.param(*p, id=f"{p[0]}-{i}") for i, p in enumerate(YAML)])
def test_configurations_parse_behind_the_default_one(page, code, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "it.yaml").write_text(code)
    if yaml.safe_load(code).keys() <= {"model", "data", "trainer"}:  # or it is what stands under a class path
        parse("fit", "--config", "configs/mgpo.yaml", "--config", str(tmp_path / "it.yaml"))


def lookup(name):
    """What a dotted name stands for: a module, or something in one."""
    parts, found = name.split("."), mgpo
    for i, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[:i]))
        found = getattr(found, part)
    return found


def test_names_can_be_imported():
    texts = [re.sub(r"\]\([^)]*\)", "]", text) for text in PAGES.values()]  # without the links' targets
    names = {name for text in texts for name in re.findall(r"(?<![\w/.-])mgpo(?:\.[A-Za-z_]\w*)+", text)}
    assert len(names) > 60
    for name in names - {"mgpo.json"}:  # a file
        lookup(name)


def test_keys_are_those_of_the_classes():
    """`model.`, `data.` and `trainer.` in front of a key, as deep as classes are known."""

    def keys(*classes):
        return {key for part in classes for base in part.__mro__ for key in inspect.signature(base).parameters}

    policy = keys(lookup("mgpo.policy.Qwen25VL"), lookup("mgpo.policy.Pretrained"))
    known = {"model": keys(mgpo.MGPO), "data": keys(mgpo.VQAData), "trainer": keys(Trainer),
             "model.objective": keys(Objective), "model.policy.init_args": policy}  # fmt: skip
    named = {key for text in PAGES.values() for key in re.findall(r"`((?:model|data|trainer)(?:\.\w+)+)", text)}
    assert len(named) > 20
    for key in named:
        place, _, last = key.rpartition(".")
        assert place not in known or last in known[place], key


def test_paths_are_there():
    pattern = r"(?<![\w/.-])((?:mgpo|tests|configs|notebooks|results|docs|\.ci)/[\w./-]*\w)"
    paths = {path for text in PAGES.values() for path in re.findall(pattern, text)}
    assert len(paths) > 20
    assert not [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target, anchor in links(page):
        assert (ROOT / target).exists(), target
        if anchor.startswith("mgpo."):  # of the reference, which has a name where it is defined and described
            found = lookup(anchor)
            assert f"{anchor}.".startswith(f"{getattr(found, '__module__', anchor)}.") and found.__doc__, anchor
            assert any(anchor.startswith(wing) for wing in re.findall(r"^::: (\S+)", PAGES[target], re.MULTILINE))
        elif anchor:
            assert anchor in anchors(target), (target, anchor)


def test_every_page_is_two_clicks_away_and_in_the_sites_menu():
    near = {"README.md"}
    for _ in range(2):
        near |= {target for page in near & PAGES.keys() for target, _ in links(page)}
    pages = {str(path.relative_to(ROOT)) for path in SITE}
    assert pages - near <= {"docs/index.md"}  # the site's own first page
    menu = re.findall(r"[\w\-/]+\.md", yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(f"docs/{page}" for page in menu) == sorted(pages)


def test_every_wing_has_its_page_of_reference():
    wings = {part.name for part in pkgutil.iter_modules(mgpo.__path__) if part.ispkg}
    assert {name for name in wings if f"::: mgpo.{name}\n" not in PAGES.get(f"docs/api/{name}.md", "")} == set()


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 170
    assert len(PAGES["README.md"].split()) <= 1500
