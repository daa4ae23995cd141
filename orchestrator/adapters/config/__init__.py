"""Files that people edit, read with line numbers and changed without losing comments: profiles, orch.toml, keys."""
