"""Benchmarks: workloads, load generation, metrics and reports.

:func:`toolkit.bench.runner.run` drives a :class:`toolkit.bench.target.Target` (a Triton over
gRPC or HTTP, or an engine inside this process) with a workload under a load and returns a
:class:`toolkit.bench.report.BenchReport`; :func:`toolkit.bench.sweep.find_rate` searches the
highest rate that it serves within its SLO.
"""
