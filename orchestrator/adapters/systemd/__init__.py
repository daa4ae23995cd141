"""systemd and the accounts of the machine: notification, handed sockets, and the steps of an installation."""
