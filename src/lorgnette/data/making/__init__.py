"""Questions and answers about pictures, by any vision model behind an OpenAI-compatible address."""
