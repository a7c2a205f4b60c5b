"""A trained model becomes a SavedModel that hosts may serve."""
