"""Memory as the proofs count it; the benchmarks count it the same way."""

from benchmarks.memory import PeakMemory, peak_bytes

__all__ = ["PeakMemory", "peak_bytes"]
