"""The kernel explorer in Python: arguments, traits, results."""

import numpy as np
import pytest
import torch

from acmix_edu import ACmix, shift, shift_kernel
from acmix_edu.examples import photograph
from acmix_edu.explorers import KernelExplorer
from acmix_edu.training import trained_acmix


def test_starts_with_the_papers_shift():
    explorer = KernelExplorer()
    temple = photograph("china", 48)[0].mean(0, keepdim=True)
    torch.testing.assert_close(explorer.current_image(), temple)
    torch.testing.assert_close(explorer.current_kernel(), shift_kernel(-1, -1))
    assert torch.equal(explorer.result(), shift(temple, -1, -1))


@pytest.mark.parametrize("k", [3, 5])
def test_every_shift_is_known(k):
    explorer = KernelExplorer(torch.rand(7, 11))
    for t in range(k * k):
        move = t // k - k // 2, t % k - k // 2
        explorer.kernel = shift_kernel(*move, k).flatten().tolist()
        assert explorer.displacement() == move
        assert torch.equal(explorer.result(), shift(explorer.current_image(), *move))


@pytest.mark.parametrize("kernel", [[0] * 9, [1] * 9, [0.5] + [0] * 8, [1, -1, 1] + [0] * 6])
def test_no_other_kernel_is_a_shift(kernel):
    explorer = KernelExplorer()
    explorer.kernel = kernel
    assert explorer.displacement() is None


def test_the_learnt_kernel_is_a_typical_one():
    """Training moved half of the kernels less far; and it still looks like a shift."""
    name, numbers = KernelExplorer().learnt
    assert "typical" in name
    weight, ours = trained_acmix().dep_conv.weight.detach(), torch.tensor(numbers).view(3, 3)
    shifts = [shift_kernel(t // 3 - 1, t % 3 - 1, 3) for t in range(9)]
    far = sorted((kernel - shifts[t]).norm() for row in weight for t, kernel in enumerate(row))
    start = shifts[ours.argmax()]
    assert far[70] < (ours - start).norm() < far[73]
    apart = (weight - ours).abs().flatten(2).amax(2)
    assert (apart < 5.1e-4).sum() == 1


def test_own_map_and_kernel():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(9, 14, generator=generator)
    kernel = torch.randn(5, 5, generator=generator)
    explorer = KernelExplorer(image, kernel)
    padded = torch.nn.functional.pad(image, (2,) * 4)
    windows = padded.unfold(0, 5, 1).unfold(1, 5, 1)
    torch.testing.assert_close(explorer.result()[0], (windows * kernel).sum((2, 3)))
    np.testing.assert_array_equal(np.frombuffer(explorer.image, np.float32), image.flatten())
    assert explorer.sizes == {"height": 9, "width": 14}


def test_takes_maps_of_many_kinds():
    colours = torch.rand(3, 6, 5)
    for image in (colours, colours.numpy(), colours[None]):
        seen = KernelExplorer(image).current_image()
        torch.testing.assert_close(seen, colours.mean(0, keepdim=True))
    torch.testing.assert_close(KernelExplorer(colours[:1]).current_image(), colours[:1])
    weight = torch.nn.Conv2d(3, 8, 5).weight
    torch.testing.assert_close(
        KernelExplorer(kernel=weight[2, 1]).current_kernel(), weight[2, 1].detach()
    )


def test_results_are_copies():
    explorer = KernelExplorer()
    for made in (explorer.current_image(), explorer.current_kernel(), explorer.result()):
        made.zero_()
    assert explorer.result().sum() > 0 and explorer.displacement() == (-1, -1)


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"kernel": torch.zeros(4, 4)}, ValueError, r"one of \(3, 5\).*weight\[0, 0\]"),
        ({"kernel": torch.zeros(3, 5)}, ValueError, r"weight\[0, 0\]"),
        ({"kernel": torch.zeros(1, 3, 3)}, ValueError, r"weight\[0, 0\]"),
        ({"kernel": torch.full((3, 3), torch.nan)}, ValueError, "finite"),
        ({"kernel": torch.full((3, 3), 101.0)}, ValueError, "divide"),
        ({"kernel": ACmix(3, 4)}, TypeError, "torch.as_tensor"),
        ({"kernel": torch.eye(3).to_sparse()}, TypeError, r"pass kernel\.to_dense"),
        ({"image": torch.zeros(2, 8, 8)}, ValueError, "for colours"),
        ({"image": torch.zeros(8)}, ValueError, "for colours"),
        ({"image": torch.zeros(8, 8, dtype=torch.uint8)}, TypeError, "255"),
        ({"image": torch.zeros(200, 100)}, ValueError, "at most"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, kind, says):
    with pytest.raises(kind, match=says):
        KernelExplorer(**arguments)


@pytest.mark.parametrize(
    ("trait", "value"),
    [("kernel", [1.0] * 8), ("kernel", []), ("kernel", [101.0] * 9), ("kernel", [np.nan] * 9),
     ("pixel", (48, 0)), ("pixel", (0, -1))],
)  # fmt: skip
def test_traits_that_cannot_be_used(trait, value):
    explorer = KernelExplorer()
    with pytest.raises(ValueError, match=f"{trait}.* must .*came"):
        setattr(explorer, trait, value)
