"""The queen as rbeectl has her: how she is by systemd's word, waking her, asking her, turning her off."""
