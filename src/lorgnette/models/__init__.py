"""Vision tower + projector + language model: put together, loaded, made trainable, run on rows, merged."""
