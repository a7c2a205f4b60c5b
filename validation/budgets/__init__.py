"""The holdout's error budget: how often it may decide, kept in the bucket."""
