"""Other projects' checkpoints to Hugging Face and back: read into parts, written from parts, every tensor accounted."""
