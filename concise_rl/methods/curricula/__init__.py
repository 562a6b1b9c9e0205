"""Which prompts come, from what is remembered of them. Not here: data sets."""
