"""Files that others publish: where each is had, in order, and how it is known to be the right one."""
