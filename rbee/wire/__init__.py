"""What crosses a wire or a table.

A shape is a frozen dataclass whose annotations are the whole truth about it: `codec` checks JSON
against them and writes it, `openapi` describes it.

(No slots: they would make each class twice, and rbeectl start 4 ms later.)
"""
