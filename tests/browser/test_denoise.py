"""The denoise explorer in the built book: picture and windows come from the recorded weights."""

import itertools

import numpy as np
import pytest
from shown import AMOUNT, Shown, colours, number, picture

from acmix_edu import entropy
from acmix_edu.explorers import DenoiseExplorer
from acmix_edu.training import film, trained_denoiser
from acmix_edu.training.denoise import held_out, psnr

CHAPTER = "book/09_training.html"


class Denoise(Shown):
    """The denoise explorer on a page, and the same explorer in Python."""

    def __init__(self, page):
        super().__init__(page, "denoise")
        self.explorer = DenoiseExplorer(pixel=(13, 12))

    def pictures(self):
        clean, noisy = held_out()
        return clean[0], noisy[0]

    def check(self, pixel=None):
        """Compare maps and numbers with Python for the page's state; return what is drawn."""
        state = self.state()
        self.explorer.arm, self.explorer.moment = state["arm"], state["moment"]
        self.explorer.pixel = tuple(state["pixel"] if pixel is None else pixel)
        windows, result = self.explorer.windows(), self.explorer.result().clamp(0, 1)
        clean, noisy = self.pictures()
        made = {"clean": clean, "noisy": noisy, "result": result}
        made = {name: picture(colour.numpy()) for name, colour in made.items()}
        for n, window in enumerate(windows):
            made[f"head{n}"] = colours(window.reshape(7, 7).numpy(), 0, 4 / 49, AMOUNT)
        drawn = self.compare(made)
        evenness = entropy(windows[None, :, :, None, None]).flatten()
        for n, (window, even) in enumerate(zip(windows, evenness, strict=True)):
            words = self.note(f"head{n}").split()
            assert number(words[2]) == pytest.approx(49 * window.max().item(), abs=6e-3)
            assert number(words[-1]) == pytest.approx(even.item(), abs=6e-4)
        frames = film(state["arm"])
        step = int(self.control("moment").get_attribute("aria-valuetext"))
        frame = next(frame for frame in frames if frame["step"] == step)
        dB, step_told = self.note("result").split(" dB after ")
        assert number(dB) == pytest.approx(psnr(result, clean), rel=6e-3)
        assert step_told == f"{step} steps"
        for told in self.root.locator("[data-told]").all():
            value = frame[told.get_attribute("data-told")]
            assert number(told.inner_text()) == pytest.approx(value, rel=6e-3, abs=6e-4)
        return drawn


@pytest.fixture
def shown(page, server):
    page.goto(f"{server}/{CHAPTER}")
    return Denoise(page)


def test_controls_take_one_row_at_a_desk_and_two_on_a_phone(page, server):
    page.goto(f"{server}/{CHAPTER}")
    Denoise(page)
    for width, rows in ((1280, 1), (390, 2)):
        page.set_viewport_size({"width": width, "height": 800})
        tops = page.locator(".denoise .controls > *").evaluate_all(
            "(boxes) => boxes.map((box) => box.getBoundingClientRect().bottom)"
        )
        assert len({round(top) for top in tops}) == rows, tops


def changed(a, b):
    return {name for name in a if not np.array_equal(a[name], b[name])}


def test_every_control(shown):
    moving = {"result", *(f"head{n}" for n in range(4))}
    drawn = [shown.check()]
    shown.click_track("moment")
    drawn.append(shown.check())
    shown.press_one("moment")
    drawn.append(shown.check())
    shown.root.get_by_role("button", name="One step back").click()
    drawn.append(shown.check())
    shown.control("arm").select_option("lost-init")
    drawn.append(shown.check())
    for before, after in itertools.pairwise(drawn):
        assert changed(before, after) == moving
    for key in ("Home", "End"):
        shown.control("moment").focus()
        shown.page.keyboard.press(key)
        shown.check()


def test_pixel_by_mouse_and_keyboard(shown):
    pinned = shown.state()["pixel"]
    for name in ("noisy", "result", "clean"):
        shown.page.mouse.move(*shown.place(name, 0, 47))
        shown.check((0, 47))
    shown.page.mouse.move(0, 0)
    shown.check(pinned)
    shown.page.mouse.click(*shown.place("noisy", 13, 12))
    shown.page.mouse.move(0, 0)
    shown.frame("noisy").focus()
    shown.page.keyboard.press("ArrowDown")
    assert shown.state()["pixel"] == [14, 12]
    shown.check()


def test_tap_on_a_phone(phone, server):
    phone.goto(f"{server}/{CHAPTER}")
    shown = Denoise(phone)
    phone.touchscreen.tap(*shown.place("noisy", 40, 3))
    assert shown.state()["pixel"] == [40, 3]
    shown.check()


def test_it_reaches_the_quality_that_was_recorded(shown):
    for arm in ("small-beta", "acmix", "lost-init"):
        shown.control("arm").select_option(arm)
        shown.control("moment").focus()
        shown.page.keyboard.press("End")
        dB = number(shown.note("result").split(" dB")[0])
        assert dB == pytest.approx(film(arm)[-1]["psnr"], abs=0.06)
        assert dB > number(shown.note("noisy").split(" dB")[0]) + 4


@pytest.mark.parametrize("width", [320, 1280])
def test_the_scale_says_what_is_even(page, server, width):
    """The mark lies where its word does, and no word meets another."""
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{server}/{CHAPTER}")
    scale = Denoise(page).root.locator(".weights")
    ticks = {tick.inner_text(): tick.bounding_box() for tick in scale.locator("span").all()}
    assert list(ticks) == ["0", "even", "2 ×", "4 × or more"]
    assert all(a["x"] + a["width"] < b["x"] for a, b in itertools.pairwise(ticks.values()))
    ramp = scale.locator(".ramp").bounding_box()
    middle = ticks["even"]["x"] + ticks["even"]["width"] / 2
    assert middle == pytest.approx(ramp["x"] + ramp["width"] / 4, abs=1)


def test_the_last_moment_is_the_released_network():
    explorer = DenoiseExplorer()
    explorer.moment = 19
    ends = trained_denoiser().state_dict()
    for name, value in explorer.current_denoiser().state_dict().items():
        np.testing.assert_allclose(value, ends[name].detach(), atol=2e-3)
