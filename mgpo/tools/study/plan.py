"""What a study consists of, and the command lines that make it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mgpo.errors import UserError
from mgpo.utils.atomic_files import parse_json
from mgpo.utils.configurations import find_config

REPORT = "report.json"
AUDIT = "audit.json"  # in place of a report, where a row audits another
DONE = "done.json"  # written when the command has ended well; a report alone may be that of a run cut short
TRAINED = "checkpoints/trained.ckpt"
Value = str | bool | int | float | None


@dataclass(frozen=True)
class Run:
    """One row of the matrix, made once a seed.

    Args:
        config: The configuration file; for a row with `of`, that of the other row by default.
        set: Keys of the command line that differ from it, with their values; lists and classes as JSON texts.
        of: Evaluate what this other row has trained, instead of training.
        audits: Ask what this other row has trained, or its base, whether its answers rest on its crops; `set` holds
            options of `mgpo audit`.
        start: Train on from what this other row has trained.
        untrained: Evaluate the weights as they are; there is but one seed of it.
        rollouts: Learn from the rollouts that this other row has logged (`mgpo.data.OwnRollouts`).
        seed_keys: Keys that are set to the seed, in place of the study's.
    """

    config: str | None = None
    set: dict[str, Value] = field(default_factory=dict)
    of: str | None = None
    audits: str | None = None
    start: str | None = None
    untrained: bool = False
    rollouts: str | None = None
    seed_keys: list[str] | None = None

    @property
    def source(self) -> str | None:
        """The row that has to be made before."""
        return self.of or self.audits or self.start or self.rollouts


@dataclass(frozen=True)
class Job:
    """One command: what it is called, where it leaves its report, its arguments, and all that it depends on."""

    name: str
    folder: Path
    arguments: list[str]
    fingerprint: str

    @property
    def report(self) -> Path:
        """The file that it leaves when it ends well."""
        return self.folder / (AUDIT if self.arguments[0] == "audit" else REPORT)

    @property
    def done(self) -> bool:
        """Whether this very command, with this very configuration, has ended well."""
        try:
            return parse_json((self.folder / DONE).read_bytes())["fingerprint"] == self.fingerprint
        except (OSError, ValueError, LookupError, TypeError):
            return False


@dataclass(frozen=True)
class Matrix:
    """The rows of a study and what they share.

    Args:
        runs: The rows by name.
        seeds: Every row is made once for each of these.
        seed_keys: Keys that are set to the seed in training.
        common: Keys that are set for every row.
        by_seed: Keys whose values go with the seeds, the first with the first, and from the start again when they have
            run out: so that seeds vary the base model too.
        output: Folder of the runs.
    """

    runs: Mapping[str, Run]
    seeds: list[int]
    seed_keys: list[str]
    common: Mapping[str, Value]
    by_seed: Mapping[str, list[Value]]
    output: Path

    def seeds_of(self, run: Run) -> list[int]:
        """Those for which a row is made: an untrained one differs only by what goes with the seed."""
        untrained = run.untrained or (run.audits is not None and self.runs[run.audits].untrained)
        return self.seeds[: max([1, *map(len, self.by_seed.values())])] if untrained else self.seeds

    def varied(self, seed: int) -> dict[str, Value]:
        """The keys that go with a seed."""
        place = self.seeds.index(seed)
        return {key: values[place % len(values)] for key, values in self.by_seed.items()}


def jobs(matrix: Matrix) -> Iterator[list[Job]]:
    """All commands, trainings before what evaluates them; those of one list do not depend on each other.

    Raises:
        UserError: For a row that can't be made.
    """
    check(matrix.runs)
    level = {name: 2 * bool(run.of or run.audits) + bool(run.source) for name, run in matrix.runs.items()}
    for number in sorted(set(level.values())):
        rows = [name for name in matrix.runs if level[name] == number]
        yield [job(name, matrix, seed) for name in rows for seed in matrix.seeds_of(matrix.runs[name])]


def job(name: str, matrix: Matrix, seed: int) -> Job:
    """The command of one row and seed, with the fingerprint of all that it depends on."""
    run, runs, output = matrix.runs[name], matrix.runs, matrix.output
    if run.audits:
        return _audit(name, matrix, seed)
    trained = runs[run.of] if run.of else None
    config = run.config or (trained.config if trained else None)
    keys: dict[str, Value] = {**matrix.common, **matrix.varied(seed), **(trained.set if trained else {}), **run.set}
    keys |= {
        "trainer.logger": "lightning.pytorch.loggers.CSVLogger",  # the page reads its files
        "trainer.logger.init_args.save_dir": str(output),
        "trainer.logger.init_args.name": name,
        "trainer.logger.init_args.version": f"seed-{seed}",
    }
    arguments = ["fit" if not run.untrained and run.of is None else "validate", "--config", str(config)]
    if run.of:
        keys["ckpt_path"] = str(output / run.of / f"seed-{seed}" / TRAINED)
    elif not run.untrained:
        keys |= dict.fromkeys(matrix.seed_keys if run.seed_keys is None else run.seed_keys, seed)
    if run.start:
        keys["model.policy.init_args.start"] = str(output / run.start / f"seed-{seed}" / TRAINED)
    if run.rollouts:
        keys["data.train.init_args.rollouts"] = str(output / run.rollouts / f"seed-{seed}")
    if arguments[0] == "validate":
        keys.pop("measure", None)  # a key of `fit`
    arguments += [f"--{key}={_text(value)}" for key, value in keys.items()]
    before = job(run.source, matrix, seed).fingerprint if run.source else ""
    folder = output / name / f"seed-{seed}"
    return Job(f"{name}, seed {seed}", folder, arguments, _fingerprint(arguments, str(config), before))


def _audit(name: str, matrix: Matrix, seed: int) -> Job:
    """The command that audits another row's folder, or the weights that an untrained row has as its policy's path."""
    run, folder = matrix.runs[name], matrix.output / name / f"seed-{seed}"
    assert run.audits is not None
    audited = job(run.audits, matrix, seed)
    model: Value = str(audited.folder)
    if (row := matrix.runs[run.audits]).untrained:
        keys = {**matrix.common, **matrix.varied(seed), **row.set}
        model = keys.get("model.policy.init_args.path", "embedded")
    named = {"model": model, "output": str(folder), **run.set}
    arguments = ["audit", *(f"--{key}={_text(value)}" for key, value in named.items())]
    return Job(f"{name}, seed {seed}", folder, arguments, _fingerprint(arguments, "", audited.fingerprint))


def check(runs: Mapping[str, Run]) -> None:
    """Look whether every row can be made from its own configuration or the rows that it names. Raises UserError."""
    for name, run in runs.items():
        for key, other in (("of", run.of), ("audits", run.audits), ("start", run.start), ("rollouts", run.rollouts)):
            if other is None:
                continue
            evaluates = other in runs and (runs[other].of or runs[other].audits)
            if other not in runs or evaluates or (runs[other].untrained and key != "audits"):
                raise UserError(f"runs.{name}.{key}: {other!r} is not a row that is trained")
            if key in ("start", "rollouts") and runs[other].source:
                raise UserError(f"runs.{name}.{key}: {other!r} itself needs another row")
        if run.start and run.rollouts:
            raise UserError(f"runs.{name}: a row takes up either another's weights or its rollouts")
        if run.untrained and run.of:
            raise UserError(f"runs.{name}: a row is either untrained or evaluates what {run.of!r} has trained")
        if run.audits and (run.of or run.start or run.rollouts or run.config or run.untrained):
            raise UserError(f"runs.{name}: a row that audits another takes only options of `mgpo audit`, in `set`")
        if run.of is None and run.audits is None and run.config is None:
            raise UserError(f"runs.{name}: name a config, or with `of` or `audits` the row that it evaluates")


def _fingerprint(arguments: list[str], config: str, before: str) -> str:
    try:
        text = Path(find_config(config)).read_text("utf-8", "replace") if config else ""
    except UserError:
        text = ""  # the command itself says that there is none
    return hashlib.sha256(json.dumps([arguments, text, before]).encode()).hexdigest()


def _text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)
