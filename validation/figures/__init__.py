"""What answers are worth: metrics, exact tests, intervals and the labels that it takes, all pure functions."""
