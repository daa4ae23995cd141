"""`orch top`: what the daemon does, in a terminal. Talks to the daemon through `orchestrator.api` alone.

`views` turns a frame into lines of text and needs no Textual; `widgets`, `screens` and `app` show them.
"""
