"""The gateway: the OpenAI API for clients, passed through to the engines of workers.

A request is read (bodies, peek), gets a worker from the queen (lease), is sent to its engine (engine), and
the engine's answer goes to the client as it comes (completion, reply).
"""
