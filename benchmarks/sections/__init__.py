"""The sections of ``docs/benchmarks.md``: one function a benchmark, from its committed result to a ``Section``."""
