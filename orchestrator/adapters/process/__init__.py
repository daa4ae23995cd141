"""Processes: started, followed, ended with all that came from them; their groups, ports and limits."""
