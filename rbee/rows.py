"""Face of rbee.wire.rows for importers that have not moved yet."""

from rbee.wire.rows import read_row as read_row
from rbee.wire.rows import read_rows as read_rows
