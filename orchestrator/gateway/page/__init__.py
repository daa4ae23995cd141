"""The page at `/` for who opens the address in a browser, and the engines' own pages under `/upstream/NAME/`."""
