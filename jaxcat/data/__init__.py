"""Images: from stored files to batches on the devices."""
