"""The memory that a start needs, from a model's header and its settings: what fits, what each choice costs."""
