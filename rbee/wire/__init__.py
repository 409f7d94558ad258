"""The shapes of requests, answers, events and table rows.

A shape is a frozen dataclass that is defined by its annotations alone: `codec` checks JSON against them and
writes it, `openapi` describes it.

(No slots: with them each class is made twice, and rbeectl starts 4 ms later.)
"""
