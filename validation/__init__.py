"""Decide and promote: compare a candidate with the served champion, let a person approve, publish the release."""
