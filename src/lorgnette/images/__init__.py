"""Images from outside: opened safely, known by their content, shrunk for pages. Knows nothing about samples."""
