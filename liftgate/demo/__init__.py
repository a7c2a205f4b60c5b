"""`make demo`: the whole story on one machine, with the same parts that production uses."""
