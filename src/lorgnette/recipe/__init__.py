"""The recipe: one YAML file, strictly typed, with all its mistakes at once."""
