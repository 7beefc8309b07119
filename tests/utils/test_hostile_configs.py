"""Configurations that nobody should have written: one sentence each, soon, and nothing of theirs is run."""

import resource
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mgpo.cli import main
from mgpo.errors import UserError
from mgpo.utils.configurations import DEEPEST, LARGEST, MOST, check_yaml, load, load_file
from tests.test_cli import ROOT

CONFIG = str(ROOT / "configs" / "mgpo.yaml")


def ninefold(levels):
    """Each level is the one below nine times."""
    names = ["&a0 [" + "x, " * 9 + "]", *(f"&a{i} [" + f"*a{i - 1}, " * 9 + "]" for i in range(1, levels))]
    return "[" + ", ".join(names) + "]"


FILES = {  # what the file holds, and what is said of it
    "bomb": (f"data: {ninefold(12)}", "more than 10,000 values"),
    "bomb among the options": (
        "data:\n  train:\n    class_path: mgpo.data.Scenes\n    init_args: {count: 4, kinds: " + ninefold(12) + "}",
        "more than 10,000 values",
    ),
    "bomb of merged keys": (
        "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 10)),
        "more than 10,000 values",
    ),
    "loop": ("data: &d\n  train: *d\n", r"\*d holds itself, line 2"),
    "loop of lists": ("data:\n  val: &v [*v]\n", r"\*v holds itself"),
    "alias without an anchor": ("data: *nothing\n", "undefined alias"),
    "nested lists": ("data: " + "[" * 50_000, "nested more than 50 deep|exceeded maximum nesting depth"),
    "nested mappings": ("data: " + "{a: " * 20_000, "nested more than 50 deep|exceeded maximum nesting depth"),
    "large": ("# \n" * (LARGEST // 3 + 1), "has more than 1,000,000 bytes"),
    "number": ("model:\n  group_size: " + "9" * 10_000, "10000 digits"),
    "no text": (bytes(range(256)), "no text in UTF-8"),
    "nothing": ("", "holds no keys"),
    "a word": ("fit", "holds no keys"),
    "a list": ("- 1\n- 2\n", "holds no keys"),
    "broken": ("data: [1, 2\nmodel: }\n", "did not find expected"),
    "list as a key": ("? [a, b]\n: 3\n", "unhashable key"),
    "number as a key": ("model:\n  1: 2\n", "model.1 is no key of fit"),
    "object of Python": ("data: !!python/object/apply:subprocess.Popen [[touch, owned]]\n", "constructor for the tag"),
    "unknown key": ("modle:\n  group_size: 8\n", "modle is no key of fit; did you mean model"),
    "word for a number": ("model:\n  group_size: many\n", "model.group_size"),
    "list for a mapping": ("model: [1, 2]\n", "model"),
    "nulls": ("model: null\ndata: null\ntrainer: null\n", "model.policy"),
    "no such class": ("model:\n  reward: mgpo.rewards.Nice\n", "there is no mgpo.rewards.Nice"),
    "an abstract class": ("model:\n  policy: mgpo.policy.QwenVL\n", "QwenVL is abstract: it does not define decode"),
    "a function": (
        "model:\n  reward: {class_path: os.system, init_args: {command: touch owned}}\n",
        "os.system is no Reward",
    ),
    "another class": (
        "trainer:\n  callbacks:\n    - {class_path: subprocess.Popen, init_args: {args: [touch, owned]}}\n",
        "subprocess.Popen does not correspond to a subclass of Callback",
    ),
    "another class to be called": (
        "model:\n  optimizer: {class_path: subprocess.Popen, init_args: {args: [touch, owned]}}\n",
        "'subprocess.Popen' to be a subclass of <class 'Optimizer'>",
    ),
    "a key twice": ("model:\n  seed: 1\ndata: {}\nmodel:\n  seed: 2\n", "model stands there twice, line 4"),
    "a key twice within": ("model: {sampling: {top_p: 1, temperature: 1, top_p: 0.5}}\n", "top_p stands there twice"),
    "a module that is none": ("model:\n  dialogue: {class_path: nowhere.Dialogue}\n", "nowhere"),
}


@pytest.fixture(autouse=True)
def bounded():
    """Little more memory than this process has: what would fill the machine fails instead."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", FILES)
def test_a_file_gets_one_sentence(tmp_path, monkeypatch, capfd, name):
    monkeypatch.chdir(tmp_path)
    content, words = FILES[name]
    (tmp_path / "hostile.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = time.thread_time()
    with pytest.raises(SystemExit, match=words) as caught:
        main(["fit", "--config", CONFIG, "--config=hostile.yaml", "--trainer.callbacks+=mgpo.callbacks.Progress"])
    assert time.thread_time() - before < 20  # where it hangs it does so for days
    assert str(caught.value).startswith("mgpo: ") and "\n" not in str(caught.value) and len(str(caught.value)) < 1200
    assert "Traceback" not in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.yaml"]


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "sparse.yaml").open("wb") as file:
        file.truncate(2**35)
    for arguments in (["fit", "-c", f"{tmp_path}/sparse.yaml"], ["leaks", f"--config={tmp_path}/sparse.yaml"]):
        with pytest.raises(SystemExit, match="has more than 1,000,000 bytes"):
            main(arguments)


@pytest.mark.parametrize("command", ["predict", "export", "leaks", "study", "pretrain", "plan", "doctor", "validate"])
def test_every_command_is_guarded(tmp_path, command):
    (tmp_path / "loop.yaml").write_text("data: &d [*d]\n")
    with pytest.raises(SystemExit, match="holds itself"):
        main([command, "--config", str(tmp_path / "loop.yaml")])


def test_an_option_is_read_as_a_file_is():
    with pytest.raises(SystemExit, match=r"data\.val"):
        main(["fit", "--config", CONFIG, f"--data.val={ninefold(12)}"])


def test_what_is_sound_is_read_as_before():
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        text = path.read_text()
        assert load(text) == yaml.safe_load(text) or "e-" in text  # 1e-6 is a number here
    assert load("[" * DEEPEST + "]" * DEEPEST)
    assert len(load("[" + "x, " * (MOST - 1) + "]")) == MOST - 1


SMALL = st.recursive(st.integers() | st.text("ab*&[]{}:!", max_size=5), lambda part: st.lists(part, max_size=4))


@settings(max_examples=200, deadline=None)
@given(SMALL | st.dictionaries(st.text("ab", max_size=3), SMALL))
def test_whatever_is_small_survives(value):
    assert load(yaml.safe_dump([value])) == [value]


@settings(max_examples=200, deadline=None)
@given(st.text("&*ab[]{}:,!-|>\n #\"'<%@`", max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        check_yaml(text)
        load(text)
    except yaml.YAMLError:
        pass


def test_a_class_path_is_imported_and_so_trusted(tmp_path, monkeypatch):
    """What the README warns of: before its type can be judged, a module has been run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger.py").write_text("open('owned', 'w').close()\nclass Thing: pass\n")
    (tmp_path / "hostile.yaml").write_text("model: {dialogue: {class_path: stranger.Thing}}\n")
    with pytest.raises(SystemExit, match=r"stranger\.Thing is no Dialogue: it has no open"):
        main(["fit", "--config", CONFIG, "--config", "hostile.yaml"])
    assert (tmp_path / "owned").exists()


def test_a_broken_file_is_told_by_its_line(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("model:\n  policy: {class_path: mgpo.policy.Qwen25VL\ndata: 3\n")
    with pytest.raises(UserError) as raised:
        load_file(str(path))
    said = str(raised.value)
    assert said.startswith(f"{path}, line 3, column ") and "unicode string" not in said
