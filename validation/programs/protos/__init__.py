"""The parts of TensorFlow's SavedModel messages that the scan reads, with their field numbers and no TensorFlow."""
