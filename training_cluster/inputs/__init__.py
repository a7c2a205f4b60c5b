"""From shards to batches: order, reading, parsing, augmentation."""
