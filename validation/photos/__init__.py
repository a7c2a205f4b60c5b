"""The frozen holdout: which photos judge, which of them are shown, and which were trained on."""
