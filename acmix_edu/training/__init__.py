"""Training that a reader can repeat: pictures, a small network and one loop (chapters 09 and 10).

``python -m acmix_edu.training`` trains one network. ``python -m acmix_edu.training.runs`` trains
every arm on every task and writes the small files that the chapters read.
``python -m acmix_edu.training.denoise`` trains the ACmix whose maps can be read.
"""

from acmix_edu.training.data import Data, load
from acmix_edu.training.loop import Plan, train
from acmix_edu.training.network import ARMS, Network
from acmix_edu.training.released import (
    denoiser_of,
    film,
    released,
    trained_acmix,
    trained_denoiser,
)

__all__ = [
    "ARMS", "Data", "Network", "Plan", "denoiser_of", "film", "load", "released", "train",
    "trained_acmix", "trained_denoiser",
]  # fmt: skip
