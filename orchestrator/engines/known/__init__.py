"""The generated model whose answers are known, for the demo and the tests."""
