"""The figures of devices and the host: memory, utilisation, CPUs, page cache. Reads only."""
