"""What every room's tests share."""

import hypothesis

# No deadline: a busy machine is no bug. No database and the same examples in each run: a red run stays red.
hypothesis.settings.register_profile("unit", deadline=None, max_examples=25, database=None, derandomize=True)
hypothesis.settings.load_profile("unit")
