"""Exercises that check themselves: these functions say right or wrong, and give a hint."""

import base64
import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from types import EllipsisType

import numpy as np
import torch

try:
    from IPython.display import display
except ImportError:  # the package without the book
    display = print  # type: ignore[assignment]

UNANSWERED = "Not answered yet: replace the three dots."


def check(
    answer: object,
    expected: object,
    hint: str = "",
    within: float = 0.0,
    choices: Sequence[str] = (),
) -> bool:
    """Say whether an answer is right; print a hint if it is not.

    While the answer is still ``...``, the book's page shows a form to answer in, if the right
    answer is a number, a word, a truth value, or a tuple or list of numbers or truth values. For a
    tuple the form asks for as many items as it has; for a list it takes any number of them.

    Args:
        answer: what the reader wrote: a number, a string, a tensor, a tuple of these, or ``...``
            for not yet.
        expected: the right answer, of the same kind. In words, case does not count, nor do quotes,
            full stops and spaces around them.
        hint: printed after a wrong answer.
        within: how far a number may be off. A float may always be off by 1e-4 of its value.
        choices: the words to choose from on the page.

    Returns:
        True for a right answer.
    """
    if answer is ...:
        form = _form(expected, hint, within, choices)
        display(_Unanswered(form)) if form else print(UNANSWERED)
        return False
    right = _equal(answer, expected, within)
    print("✓ Right." if right else "✗ Not yet. " + hint)
    return right


def check_function(
    function: Callable | EllipsisType, reference: Callable, *inputs: tuple, hint: str = ""
) -> bool:
    """Say whether a reader's function returns what the reference returns, on every input.

    Args:
        function: what the reader wrote, or ``...``.
        reference: the function that is known to be right.
        inputs: one or more trials, each a tuple of arguments; the reader's function gets copies.
        hint: printed after a wrong answer.

    Returns:
        True if all results are equal.
    """
    if function is ...:
        return check(..., None)
    if not inputs:
        raise ValueError("inputs must hold at least one trial, but none came; pass (argument,).")
    for number, arguments in enumerate(inputs, start=1):
        try:
            answer = function(*copy.deepcopy(arguments))
        except Exception as error:
            print(f"✗ Trial {number} raised {type(error).__name__}: {error}. {hint}")
            return False
        if not _equal(answer, reference(*arguments)):
            print(f"✗ Trial {number} of {len(inputs)} differs. {hint}")
            return False
    print(f"✓ Right, in {len(inputs)} of {len(inputs)} trials.")
    return True


@dataclass
class _Unanswered:
    """A sentence that book.js turns into a form on the book's page; it carries the answer."""

    form: dict

    def __repr__(self):
        return UNANSWERED

    def _repr_html_(self):
        packed = base64.b64encode(json.dumps(self.form).encode()).decode()  # not read at a glance
        return f'<pre data-exercise="{packed}">{UNANSWERED}</pre>'


def _form(expected, hint: str, within: float, choices: Sequence[str]) -> dict | None:
    """Return what the page needs to ask, or None if the answer is more than a line."""
    is_row = isinstance(expected, tuple | list)
    values = list(expected) if is_row else [expected]
    count = None if isinstance(expected, list) else len(values)
    asked = _asked(values, count, is_row)
    slack = [_slack(value, within) for value in values]
    values = [_bare(value) if isinstance(value, str) else value for value in values]
    form = {"asked": asked, "values": values, "slack": slack, "count": count}
    return form | {"hint": hint, "choices": list(choices)} if asked else None


def _asked(values: list, count: int | None, is_row: bool) -> str | None:
    """Return what the reader is to type, in words, or None if that is more than a line."""
    kinds = {type(value) for value in values}
    if not is_row and kinds == {str}:
        return "a word"
    if kinds == {bool}:
        return f"True or False, {_in_words(count)} times" if is_row else "True or False"
    if not kinds or not kinds <= {int, float} or not all(map(math.isfinite, values)):
        return None
    if count == 1:
        return "a number, as in 7 or 2/3"
    return f"{_in_words(count)} numbers, as in " + ", ".join("1234567"[: count or 2])


def _in_words(count: int | None) -> str:
    words = ["some", "one", "two", "three", "four", "five", "six", "seven"]
    return dict(enumerate(words)).get(count or 0, str(count))


def _equal(answer, expected, within: float = 0.0) -> bool:
    """Compare by kind: tensors by shape and value, tuples item by item, numbers by value.

    A row of numbers may be a tuple, a list, an array or a tensor, and 6.0 equals 6. book.js
    compares what is typed on the page in the same way.
    """
    if isinstance(expected, torch.Tensor):
        answer = _as_tensor(answer)
        return answer is not None and answer.shape == expected.shape and _close(answer, expected)
    if isinstance(expected, tuple | list):
        answer = answer.tolist() if _is_readable(answer) else answer
        return (
            isinstance(answer, tuple | list)
            and len(answer) == len(expected)
            and all(_equal(a, e, within) for a, e in zip(answer, expected, strict=True))
        )
    if isinstance(answer, np.bool_) or (_is_readable(answer) and math.prod(answer.shape) == 1):
        answer = answer.item()
    kinds = {type(answer), type(expected)}
    if all(issubclass(kind, str) for kind in kinds):  # NumPy's, too
        return _bare(answer) == _bare(expected)
    if bool in kinds or not all(issubclass(kind, Real) for kind in kinds):
        return len(kinds) == 1 and answer == expected
    if answer != expected and (slack := _slack(expected, within)):
        try:
            return math.isclose(answer, expected, rel_tol=0, abs_tol=slack)
        except OverflowError:  # an int that no float can hold
            return False
    return bool(answer == expected)


def _slack(expected, within: float) -> float:
    """Return how far an answer may be off: a count must be met, a float only nearly."""
    own = max(1e-4 * abs(expected), 1e-9) if isinstance(expected, float) else 0.0
    return max(own, within)


def _bare(word: str) -> str:
    return word.strip(" .\"'").lower()


def _as_tensor(answer) -> torch.Tensor | None:
    """Return an array, or lists of numbers, as a tensor; None for what is neither."""
    if not isinstance(answer, torch.Tensor | np.ndarray | list | tuple):
        return None
    try:
        return torch.as_tensor(answer)
    except (TypeError, ValueError, RuntimeError):
        return None


def _is_readable(answer) -> bool:
    """Return whether it is an array, or a dense tensor with numbers in it."""
    if isinstance(answer, torch.Tensor):
        return not answer.is_meta and answer.layout == torch.strided
    return isinstance(answer, np.ndarray)


def _close(answer: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether two dense tensors of real numbers hold the same, whatever their dtypes."""
    if answer.is_complex() or not _is_readable(answer):
        return False
    answer, expected = (t.detach().cpu().double() for t in (answer, expected))
    return torch.allclose(answer, expected, rtol=1e-4, atol=1e-5)
