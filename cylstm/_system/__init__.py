"""What the package needs of the operating system: threads, CPUs, forks, files, screens."""
