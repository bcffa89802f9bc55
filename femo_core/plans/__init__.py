"""Which steps of one run are full, as a session asks for it: known beforehand, guarded, or chosen as it goes."""
