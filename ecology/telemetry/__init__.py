"""Time, memory, progress and surroundings: the few places where the machine is looked at."""
