"""What the engine means. Each function works inside its caller's transaction: no event loop, no process, no network in here."""
