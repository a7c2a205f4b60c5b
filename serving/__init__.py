"""Make the hosts serve what the releases say, and turn photos into model input in the one way there is."""
