"""Configurations that come with the package."""

from pathlib import Path

from mgpo.errors import UserError


def shipped_config(name: str) -> Path:
    """configs/NAME.yaml, from the installed package or from the checkout. Raises UserError where there is none."""
    package = Path(__file__).parent
    for folder in (package / "configs", package.parent / "configs"):
        if (path := folder / f"{name}.yaml").is_file():
            return path
    raise UserError(f"no configuration {name!r} comes with the package; name one of configs/, or a file of your own")
