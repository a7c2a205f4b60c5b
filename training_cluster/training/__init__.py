"""The training itself: workers, loop, session, checkpoints."""
