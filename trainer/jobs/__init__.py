"""Jobs other than training, each a module that is run as a process of its own in a run directory."""
