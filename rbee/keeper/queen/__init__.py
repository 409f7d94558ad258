"""The queen as rbeectl sees it: its state, waking it, requests to it, turning it off."""
