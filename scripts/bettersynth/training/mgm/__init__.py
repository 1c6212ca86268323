"""MGM (Mini-Gemini): the model, its data, its two training stages, and its answers."""
