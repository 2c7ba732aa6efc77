"""Folders to rows to buckets: what the dry run and the trainer share. No torch, no widgets."""
