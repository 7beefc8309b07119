"""Weights from files: all that a model has, no others, and numbers every one of them."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText
from transformers.utils import logging as library_logging

from mgpo.errors import UserError
from mgpo.policy.hub.checkpoint_files import read

NAMED = 2  # weights that a sentence names


def read_weights(path: str, **options: Any) -> Any:
    """The stock model with a checkpoint's weights, under today's names or older ones that the library knows.

    Raises UserError where one is missing, left over, of another shape or no number: the library would go on with
    random ones.
    """

    def load(path: str) -> Any:
        try:
            return AutoModelForImageTextToText.from_pretrained(
                path, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
        except RuntimeError as error:
            if "conversion" not in str(error):
                raise
            raise UserError(
                f"{path}: the experts' weights don't fit together: some are missing; fetch it again"
            ) from None

    with unreported():
        model, found = read(path, "weights", load)
    check_names(path, found["missing_keys"], found["unexpected_keys"], found["mismatched_keys"])
    check_finite(path, model.state_dict())
    if model.lm_head.weight is not model.get_input_embeddings().weight:  # whatever the configuration says
        for config in (model.config, model.config.text_config):
            config.tie_word_embeddings = False
    return model


def hollow(config: Any) -> Any:
    """The stock model of a configuration, with the shapes of its weights and no numbers in them."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def check_names(
    where: str | Path, missing: Collection[str], left_over: Collection[str], misshapen: Collection[tuple] = ()
) -> None:
    """Raises UserError, with the first names and how many there are, unless all of these are empty."""
    said = []
    if missing:
        said.append(f"{len(missing)} weights of this model are missing ({named(missing)})")
    if left_over:
        said.append(f"{len(left_over)} are of no use to it ({named(left_over)})")
    if misshapen:
        name, given, wanted = min(misshapen)
        shapes = f"{tuple(given)} in place of {tuple(wanted)}"
        said.append(f"{len(misshapen)} are of another shape ({name}: {shapes})")
    if said:
        raise UserError(f"{where}: {'; '.join(said)}; take a complete checkpoint with the names of its published form")


def check_finite(where: str | Path, weights: Mapping[str, Tensor]) -> None:
    """Raises UserError where one of them holds NaN or infinity."""
    if broken := not_finite(weights):
        raise UserError(
            f"{where}: {len(broken)} weights hold NaN or infinity ({named(broken)}); take another checkpoint"
        )


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """The names of those with NaN or infinity. A sum, which both reach, is several times as fast as a look at each."""
    floating = {name: value.detach() for name, value in weights.items() if value.is_floating_point()}
    doubtful = [name for name, value in floating.items() if not bool(torch.isfinite(value.sum()))]
    return [name for name in doubtful if not bool(torch.isfinite(floating[name]).all())]


def named(names: Iterable[str]) -> str:
    """The first few names in their order, joined by commas, with an ellipsis where there are more."""
    ordered = sorted(names)
    return ", ".join(ordered[:NAMED]) + (", …" if len(ordered) > NAMED else "")


@contextmanager
def unreported() -> Iterator[None]:
    """Within it the library's own tables of names, which may have a line for each, and its bars are not printed."""
    names = ("modeling_utils", "integrations.peft", "distributed.tensor_parallel")
    loggers = [logging.getLogger(f"transformers.{name}") for name in names]
    levels, bars = [logger.level for logger in loggers], library_logging.is_progress_bar_enabled()
    library_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
        if bars:
            library_logging.enable_progress_bar()
