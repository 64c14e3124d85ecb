"""The first half of IMS3 (CVPR 2026, arXiv 2603.13960): Minimax's tuning with inversion matching beside its criteria
(`methods/minimax/inversion.py`). Alone it samples plainly; it tunes priors for IMS3's second half and other methods.
"""

from __future__ import annotations

from ddbench.methods.ims3.params import IMParams, IMTuning
from ddbench.methods.minimax.method import Minimax


class MatchedTuning(Minimax):
    """Minimax with inversion matching."""

    name = "ims3-im"
    version = 1
    tuning = IMTuning
    Params = IMParams
