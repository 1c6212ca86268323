"""The benchmarks, one a module: each defines a subclass of `bettersynth.configuration.benchmark.Benchmark`."""
