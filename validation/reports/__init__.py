"""The evidence: the record of what was measured, and the page that people read."""
