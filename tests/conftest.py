"""Shared by all tests: one seed, and the outputs, weights and gradients of the published module."""

from pathlib import Path

import numpy as np
import pytest
import torch

from acmix_edu import ACmix

torch.set_num_threads(1)  # the tests run side by side

GOLDEN = sorted((Path(__file__).parent / "golden").glob("official_?.npz"))


def pytest_addoption(parser, pluginmanager):
    """Let the tests run without pytest-timeout, too, whose option pyproject.toml sets."""
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "nothing, without pytest-timeout")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request) -> dict[str, torch.Tensor]:
    """One case made by the published module: x, y, grad_y, grad_x, state/…, grad/…, config."""
    with np.load(request.param) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture
def published(golden) -> ACmix:
    """The case's module, with the published weights."""
    module = ACmix(*golden["config"].tolist())
    state = {k.removeprefix("state/"): v for k, v in golden.items() if k.startswith("state/")}
    module.load_state_dict(state)
    return module


def check_published(module: ACmix, golden: dict[str, torch.Tensor]) -> None:
    """The published module's results and every gradient."""
    x = golden["x"].requires_grad_()
    y = module(x)
    y.backward(golden["grad_y"])
    torch.testing.assert_close(y, golden["y"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, golden["grad_x"], rtol=1e-5, atol=1e-5)
    for name, parameter in module.named_parameters():  # sums over all pixels: by their largest
        expected = golden[f"grad/{name}"]
        within = {"rtol": 1e-5, "atol": 2e-5 * max(1, expected.abs().max().item())}
        torch.testing.assert_close(parameter.grad, expected, **within, msg=lambda m, n=name: n + m)
