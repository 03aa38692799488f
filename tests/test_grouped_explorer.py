"""The grouped explorer in Python: traits, the module that it draws."""

import pytest

from acmix_edu.explorers import GroupedExplorer


def test_starts_with_one_set_of_nine():
    assert list(GroupedExplorer().module().weight.shape) == [1, 9, 3, 3]


def test_the_module_has_the_packages_shape():
    explorer = GroupedExplorer()
    explorer.kernel_size, explorer.dims, explorer.sets = 5, 2, 3
    assert list(explorer.module().weight.shape) == [6, 25, 5, 5]


@pytest.mark.parametrize(
    ("trait", "value"),
    [("kernel_size", 4), ("dims", 0), ("dims", 3), ("sets", 0), ("sets", 5), ("channel", -1),
     ("channel", 8), ("tap", 25), ("part", "")],
)  # fmt: skip
def test_traits_that_cannot_be_used(trait, value):
    explorer = GroupedExplorer()
    with pytest.raises(ValueError, match=f"{trait}.* must .*came"):
        setattr(explorer, trait, value)
