"""A text as the words of the commands in it: quotes, continuations, variables."""
