"""Where targets come from: the data set's regions, weak labels, experts. One file each."""
