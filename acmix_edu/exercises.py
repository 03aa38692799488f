"""Exercises that check themselves: the book's functions say right or wrong, and give a hint."""

from collections.abc import Callable

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
        print("Not answered yet: put your answer in place of the three dots.")
        return False
    right = _equal(answer, expected)
    print("✓ Right." if right else "✗ Not yet. " + hint)
    return right


def check_function(function, reference: Callable, *inputs: tuple, hint: str = "") -> bool:
    """Say whether a reader's function gives what the reference gives, on every input.

    Args:
        function: what the reader wrote, or ``...``.
        reference: the function that is known to be right.
        inputs: tuples of arguments, one for each trial.
        hint: printed with a wrong answer.

    Returns:
        True if all results are equal.
    """
    if function is ...:
        return check(..., None)
    for number, arguments in enumerate(inputs, start=1):
        try:
            answer = function(*arguments)
        except Exception as error:
            print(f"✗ Trial {number} stopped with {type(error).__name__}: {error}. {hint}")
            return False
        if not _equal(answer, reference(*arguments)):
            print(f"✗ Trial {number} of {len(inputs)} differs. {hint}")
            return False
    print(f"✓ Right, in {len(inputs)} of {len(inputs)} trials.")
    return True


def _equal(answer, expected) -> bool:
    if isinstance(expected, torch.Tensor):
        return (
            isinstance(answer, torch.Tensor)
            and answer.shape == expected.shape
            and torch.allclose(answer.to(expected.dtype), expected, rtol=1e-4, atol=1e-5)
        )
    if isinstance(expected, tuple | list):
        return (
            isinstance(answer, tuple | list | torch.Size)
            and len(answer) == len(expected)
            and all(map(_equal, answer, expected))
        )
    if isinstance(expected, float):
        return isinstance(answer, int | float) and abs(answer - expected) <= 1e-4 * abs(expected)
    return type(answer) is type(expected) and answer == expected
