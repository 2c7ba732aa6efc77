"""The DeepSpeed trainer that dpnb's TOML files drive. No widgets, ever; light to import."""

import os

# Before torch is loaded, which reads it once: CPU threads that have nothing to do sleep instead of spinning. Where a
# browser or another run shares the cores, a spinning thread holds up the one that it waits for: a step of the embedded
# model on two cores was five to eight times slower (tests/bench/bench_threads.py).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
