"""A candidate is a program: the scan, the walls, the trial and the throw-away server."""
