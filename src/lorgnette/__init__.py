"""Give a language model eyes, teach it your pictures and your language, and prove that it got better."""

__version__ = "0.1.0"
