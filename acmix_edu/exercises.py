"""Exercises that check themselves: the book's functions say right or wrong, and give a hint."""

import copy
import math
from collections.abc import Callable
from numbers import Real

import numpy as np
import torch


def check(answer, expected, hint: str = "") -> bool:
    """Say whether an answer is right; print a hint if it is not.

    Args:
        answer: what the reader wrote: a number, a string, a tensor, a tuple of these, or ``...``
            for not yet.
        expected: the right answer of the same kind.
        hint: printed with a wrong answer.

    Returns:
        True for a right answer.
    """
    if answer is ...:
        print("Not answered yet: replace the three dots.")
        return False
    right = _equal(answer, expected)
    print("✓ Right." if right else "✗ Not yet. " + hint)
    return right


def check_function(function, reference: Callable, *inputs: tuple, hint: str = "") -> bool:
    """Say whether a reader's function gives what the reference gives, on every input.

    Args:
        function: what the reader wrote, or ``...``.
        reference: the function that is known to be right.
        inputs: tuples of arguments, one or more trials; the reader's function gets copies.
        hint: printed with a wrong answer.

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
            print(f"✗ Trial {number} stopped with {type(error).__name__}: {error}. {hint}")
            return False
        if not _equal(answer, reference(*arguments)):
            print(f"✗ Trial {number} of {len(inputs)} differs. {hint}")
            return False
    print(f"✓ Right, in {len(inputs)} of {len(inputs)} trials.")
    return True


def _equal(answer, expected) -> bool:
    """Compare by kind: tensors by shape and value, tuples item by item, numbers by value.

    Numbers in rows may be tuples, lists, an array or a tensor, and 6.0 is 6.
    """
    if isinstance(expected, torch.Tensor):
        answer = _as_tensor(answer)
        return answer is not None and answer.shape == expected.shape and _close(answer, expected)
    if isinstance(expected, tuple | list):
        answer = answer.tolist() if _is_readable(answer) else answer
        return (
            isinstance(answer, tuple | list)
            and len(answer) == len(expected)
            and all(map(_equal, answer, expected))
        )
    if isinstance(answer, np.bool_) or (_is_readable(answer) and math.prod(answer.shape) == 1):
        answer = answer.item()
    kinds = {type(answer), type(expected)}
    if bool in kinds or not all(issubclass(kind, Real) for kind in kinds):
        return len(kinds) == 1 and answer == expected
    if isinstance(expected, float):
        return math.isclose(answer, expected, rel_tol=1e-4, abs_tol=1e-9)
    return bool(answer == expected)


def _as_tensor(answer) -> torch.Tensor | None:
    """Return an array, or lists of numbers, as a tensor; None for what is neither."""
    if not isinstance(answer, torch.Tensor | np.ndarray | list | tuple):
        return None
    try:
        return torch.as_tensor(answer)
    except (TypeError, ValueError, RuntimeError):
        return None


def _is_readable(answer) -> bool:
    """Is it an array, or a dense tensor with numbers in it?"""
    if isinstance(answer, torch.Tensor):
        return not answer.is_meta and answer.layout == torch.strided
    return isinstance(answer, np.ndarray)


def _close(answer: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two dense tensors of real numbers hold the same, whatever their dtypes."""
    if answer.is_complex() or not _is_readable(answer):
        return False
    answer, expected = (t.detach().cpu().double() for t in (answer, expected))
    return torch.allclose(answer, expected, rtol=1e-4, atol=1e-5)
