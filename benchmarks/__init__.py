"""What rootfree costs: contestants interleaved in one run, judged against its targets.

``python -m benchmarks --quick`` from the root of a checkout; ``README.md`` beside this file says
what is measured and how. It is a tool of the project and no part of the distribution.
"""
