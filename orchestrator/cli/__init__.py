"""One file per verb in `operate` and `setup`; `output` owns stdout, `diagnostics` owns stderr and exit codes."""
