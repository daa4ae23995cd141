"""Which of two targets is faster: order of the measurements, estimate, verdict, report. No I/O, no clock, no chance."""
