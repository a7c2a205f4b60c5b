"""What one training is asked to do."""
