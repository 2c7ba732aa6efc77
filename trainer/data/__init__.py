"""Pictures and captions to cached tensors to batches."""
