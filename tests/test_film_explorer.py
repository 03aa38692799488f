"""The film explorer in Python: what it takes from the film, and its traits."""

import numpy as np
import pytest
import torch

from acmix_edu import shift_kernels
from acmix_edu.explorers import FilmExplorer
from acmix_edu.training import film


@pytest.fixture(scope="module")
def films():
    return {start: {frame["step"]: frame for frame in film(start)} for start in FilmExplorer().told}


def test_starts_with_shifts_and_without():
    first = FilmExplorer().current_kernels()
    assert torch.equal(first["acmix"], shift_kernels(3))
    assert (first["lost-init"] != shift_kernels(3)).all()


def test_every_moment_is_the_films(films):
    explorer = FilmExplorer()
    steps = [told["step"] for told in explorer.told["acmix"]]
    assert (steps[0], steps[-1]) == (0, 1000) and steps == sorted(set(steps))
    for start, recorded in films.items():
        for moment, told in enumerate(explorer.told[start]):
            frame = recorded[told["step"]]
            assert told == {name: frame[name] for name in ("step", "psnr", "drift")}
            explorer.moment, explorer.channel = moment, moment % 4
            weight = frame["state"]["operator.dep_conv.weight"]
            assert torch.equal(explorer.current_kernels()[start], weight[moment % 4])
            shifts = shift_kernels(3).expand_as(weight)
            drift = (weight - shifts).norm() / shifts.norm()
            assert told["drift"] == pytest.approx(drift.item(), abs=1e-4)


def test_change_since_the_start(films):
    explorer = FilmExplorer(moment=19)
    explorer.channel, explorer.change = 2, True
    for start, change in explorer.current_kernels().items():
        weights = [films[start][step]["state"]["operator.dep_conv.weight"][2] for step in (0, 1000)]
        torch.testing.assert_close(change, weights[1] - weights[0])


def test_sends_what_it_shows():
    explorer = FilmExplorer(moment=7)
    sent = np.frombuffer(explorer.kernels, np.float32).reshape(2, 20, 4, 9, 3, 3)
    for n, kernels in enumerate(explorer.current_kernels().values()):
        np.testing.assert_array_equal(sent[n, 7, 0], kernels.numpy())
    explorer.current_kernels()["acmix"].zero_()
    assert explorer.current_kernels()["acmix"].abs().sum() > 0


@pytest.mark.parametrize(
    ("trait", "value"),
    [("moment", -1), ("moment", 20), ("channel", 4), ("cell", (0, 9)), ("cell", (-1, 0))],
)
def test_traits_that_cannot_be_used(trait, value):
    with pytest.raises(ValueError, match=f"{trait}.* must be .*came"):
        setattr(FilmExplorer(), trait, value)
