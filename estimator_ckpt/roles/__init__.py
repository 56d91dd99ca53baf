"""What a tensor is for: a weight, a slot or a number of an optimizer, a step."""

# What a variable is for. Those after STATISTIC are never required of a checkpoint.
WEIGHT, STATISTIC = "weight", "statistic"
METRIC, SEED, SLOT, NUMBER = "metric", "seed", "slot", "number of an optimizer"
STEP, COUNTER = "step", "counter of saves"
