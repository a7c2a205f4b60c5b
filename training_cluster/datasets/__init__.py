"""Labelled photos become shards: readers, survey, build, manifest."""
