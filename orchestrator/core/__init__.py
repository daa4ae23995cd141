"""Pure decisions: no I/O, no clock, no logging. Here itself: only what all of it shares."""
