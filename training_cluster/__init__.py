"""Produce candidates: labelled photos become shards, shards become a run with an exported SavedModel."""
