"""The read-only page of `pdk up`: what there is, and what is red."""
