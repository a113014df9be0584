"""The three engines as the flow and the command line see them. Vendor errors stop here; `.importlinter` says who else imports an SDK."""
