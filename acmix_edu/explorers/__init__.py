"""Explorers: widgets whose view computes ACmix in the browser. They need the ``book`` extra."""

try:
    import anywidget  # noqa: F401
except ImportError as error:
    raise ImportError(
        'The explorers need anywidget, which is not installed; run pip install "acmix-edu[book]".'
    ) from error

from acmix_edu.explorers.attention import AttentionExplorer
from acmix_edu.explorers.budget import BudgetExplorer
from acmix_edu.explorers.denoise import DenoiseExplorer
from acmix_edu.explorers.film import FilmExplorer
from acmix_edu.explorers.grouped import GroupedExplorer
from acmix_edu.explorers.halo import HaloExplorer
from acmix_edu.explorers.kernel import KernelExplorer
from acmix_edu.explorers.mixing import MixingExplorer
from acmix_edu.explorers.panel import SpeedPanel
from acmix_edu.explorers.program import ProgramExplorer
from acmix_edu.explorers.shift import ShiftExplorer
from acmix_edu.explorers.training import TrainingExplorer
from acmix_edu.explorers.unfold import UnfoldExplorer
from acmix_edu.explorers.walk import WalkExplorer

__all__ = [
    "AttentionExplorer",
    "BudgetExplorer",
    "DenoiseExplorer",
    "FilmExplorer",
    "GroupedExplorer",
    "HaloExplorer",
    "KernelExplorer",
    "MixingExplorer",
    "ProgramExplorer",
    "ShiftExplorer",
    "SpeedPanel",
    "TrainingExplorer",
    "UnfoldExplorer",
    "WalkExplorer",
]
