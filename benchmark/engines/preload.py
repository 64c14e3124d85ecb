"""Imported once by the fork server: what nearly every cell needs and takes seconds to import."""

import ddbench.benchmark.cli
import ddbench.benchmark.distil
import ddbench.benchmark.evaluate
import ddbench.methods.diffusion.prior
import ddbench.methods.dmgd.lockstep
import ddbench.methods.dmgd.support

__all__ = ["ddbench"]
