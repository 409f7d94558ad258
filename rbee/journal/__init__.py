"""rbee's entries in the journal: for whoever may read it, and through a door for the others of group rbee."""
