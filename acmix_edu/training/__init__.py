"""Training that a reader can repeat: pictures, a small network, one loop. Chapter 08 tells it.

``python -m acmix_edu.training`` trains one network; ``python -m acmix_edu.training.runs``
trains every arm on every task and writes the small files that the chapter reads.
"""

from acmix_edu.training.data import Data, load
from acmix_edu.training.loop import Plan, train
from acmix_edu.training.network import ARMS, Network
from acmix_edu.training.released import released

__all__ = ["ARMS", "Data", "Network", "Plan", "load", "released", "train"]
