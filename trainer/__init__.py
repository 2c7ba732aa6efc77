"""The DeepSpeed trainer that dpnb's TOML files drive. No widgets, ever; light to import."""

import os

# Before torch is loaded, which reads it once: CPU threads that have nothing to do sleep instead of spinning. Where a
# browser or another run shares the cores, a spinning thread holds up the very one that it waits for: beside two busy
# processes on two cores, a step of the embedded model took thirteen times as long. On an idle machine sleeping costs a
# third of a step of so small a model (tests/bench/bench_threads.py).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
