"""The licences of everything that the package and its tests install, from the packages' own metadata.

    python -m tests.helpers.licences > tests/LICENCES.md

Where a licence asks something of those who pass a package on, or its metadata says nothing, a remark by hand is due.
"""

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXTRAS = ("test", "lora", "docs")
ALONE = ("mlxtend", "qwen-agent")  # installed beside them, without what they ask for
COPYLEFT = re.compile(r"GPL|MPL|Mozilla|EPL|Eclipse|CDDL|EUPL|CeCILL|OSL", re.IGNORECASE)
UNKNOWN = "unknown"
REMARKS = {
    "certifi": "MPL-2.0 holds per file: a changed certificate list would have to be published; it is used unchanged",
    "hypothesis": "MPL-2.0 holds per file; for tests alone, used unchanged",
    "pathspec": "MPL-2.0 holds per file; for the site alone, used unchanged",
    "qwen-agent": "its LICENSE is Apache-2.0; tests read the vocabulary that it ships, and run none of its code",
    "numpy": "its wheels carry libgfortran (GPL with the runtime exception) and libquadmath (LGPL)",
    "shtab": "MPL-2.0 holds per file; used unchanged, for the shell's completion",
    "tqdm": "MPL-2.0 holds per file; used unchanged",
}
HEAD = """# Licences

Of every package that `pip install -e '.[test,lora,docs]'` brings on Linux, and of mlxtend and qwen-agent, by its own
metadata: `python -m tests.helpers.licences`. Those of the NVIDIA libraries that a CUDA build of torch brings along are
NVIDIA's own, and not listed. Nothing of these packages is part of this repository.

| package | licence | remark |
|---|---|---|"""


def direct() -> list[Requirement]:
    """What pyproject.toml asks for, in the package and in `EXTRAS`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    return [Requirement(line) for line in asked]


def everything() -> dict[str, Distribution]:
    """All of it that is installed, by canonical name, with what it asks for in turn."""
    found: dict[str, Distribution] = {}
    waiting = [(requirement, "") for requirement in direct()]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({**default_environment(), "extra": extra}):
            continue
        try:
            known, package = name in found, distribution(name)
        except PackageNotFoundError:  # of another kind of build, such as torch's CUDA libraries
            continue
        found[name] = package
        for wanted in [*requirement.extras, *([] if known else [""])]:
            waiting += [(Requirement(line), wanted) for line in package.requires or []]
    return found | {name: distribution(name) for name in ALONE}


def licence(package: Distribution) -> str:
    """As SPDX where the package says so, else by its classifiers or the first line of its licence."""
    metadata = package.metadata
    classifiers = [c.split(" :: ")[-1] for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    named = (metadata.get("License") or "").strip().splitlines()
    short = named[0] if named and len(named[0]) < 80 and named[0] != "UNKNOWN" else ""
    return metadata.get("License-Expression") or (short if len(named) == 1 else "") or ", ".join(classifiers) or UNKNOWN


def main() -> None:
    print(HEAD)
    for name, package in sorted(everything().items()):
        found = licence(package)
        remark = REMARKS.get(name, "")
        if (COPYLEFT.search(found) or found == UNKNOWN) and not remark:
            remark = "**look at it**"
        print(f"| {package.metadata['Name']} | {found.replace('|', '/')} | {remark} |")


if __name__ == "__main__":
    main()
