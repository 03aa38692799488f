"""Shared by all tests: one seed, and the outputs, weights and gradients of the published module."""

from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # the tests run side by side

GOLDEN = sorted((Path(__file__).parent / "golden").glob("official_?.npz"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request) -> dict[str, torch.Tensor]:
    """One case made by the published module: x, y, grad_y, grad_x, state/…, grad/…, config."""
    with np.load(request.param) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}
