"""The hives: each an object, on the queen's machine or on another one."""
