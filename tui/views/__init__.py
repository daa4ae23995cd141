"""From a frame to lines of text: pure functions, without Textual."""
