"""Operating system interfaces: threads, CPUs, forks, files, progress output."""
