"""The engines that come with the benchmark."""

from ddbench.benchmark.core.registry import Entry

ENTRIES = [
    Entry("local", "ddbench.benchmark.engines.local:LocalEngine", "processes on this machine, one GPU each"),
    Entry("ray", "ddbench.benchmark.engines.on_ray:RayEngine", "processes on the nodes of a Ray cluster"),
]
