"""The gate: a person's policy, each of its checks, and the verdict."""
