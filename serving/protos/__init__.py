"""The few TensorFlow Serving messages that a client needs, with their field numbers and no TensorFlow behind them."""
