"""What the inputs of a training can do on this machine, and what its model sees."""
