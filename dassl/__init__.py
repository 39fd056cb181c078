"""Engine, configuration, data, optimization and evaluation behind the trainers: the public API of Dassl.

This module imports nothing, so that ``dassl.config`` and the torch-free parts of ``dassl.utils`` start quickly.
"""

__version__ = "0.6.3"
