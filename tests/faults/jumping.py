"""A clock that jumps: time.time() of all modules that are imported after this one."""

from __future__ import annotations

import random
import time

real_time = time.time
jumps = [0.0]  # seconds; each look at the clock is off by one of them

time.time = lambda: real_time() + random.choice(jumps)
