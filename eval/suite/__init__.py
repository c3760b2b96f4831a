"""Suites: several benchmarks through an unmodified lmms-eval, one process each, resumed after a kill."""

from tam_plugin.eval.suite.benchmarks import Benchmark, Suite, load_suite
from tam_plugin.eval.suite.running import Run, run_suite
from tam_plugin.eval.suite.summary import describe, summarize

__all__ = ["Benchmark", "Run", "Suite", "describe", "load_suite", "run_suite", "summarize"]
