"""What a run was made of, and how runs differ."""
