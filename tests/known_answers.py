"""What an engine ought to answer with a known model, where the tests alone ask."""

from __future__ import annotations

from orchestrator.engines.known.model import KnownModel


def next_tokens(model: KnownModel, prompt: str) -> dict[str, float]:
    """The texts that may follow a prompt, with their probabilities (temperature 1, no other sampler)."""
    row = model.rows[model.state[model.last_token(prompt)]]
    return {model.vocabulary[token]: probability for token, probability in row.items()}
