"""What is in a data set, and what will be done with it: found, counted, shown, fixed."""
