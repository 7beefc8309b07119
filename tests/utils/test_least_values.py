import pytest

from mgpo.callbacks import EarlyWarning, GroundingGallery
from mgpo.errors import UserError
from mgpo.utils.least_values import check_class_arguments


@pytest.mark.parametrize(("made", "name"), [(EarlyWarning, "every_n_steps"), (GroundingGallery, "questions")])
def test_what_may_be_none_is_none_at_zero_and_nothing_below(made, name):
    where = f"trainer.callbacks: mgpo.callbacks.{made.__name__}"
    check_class_arguments(where, {name: 0})
    made(**{name: 0})
    with pytest.raises(UserError, match=f"{name} is -1"):
        check_class_arguments(where, {name: -1})
    with pytest.raises(UserError, match="rollouts is 0" if name == "questions" else "rows is 0"):
        check_class_arguments(where, {"rollouts" if name == "questions" else "rows": 0})
