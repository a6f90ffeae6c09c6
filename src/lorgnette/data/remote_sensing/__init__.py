"""The remote-sensing corpus of RS-LLaVA: its rows, and its images gathered from whatever was downloaded."""
