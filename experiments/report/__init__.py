"""The report of an output folder: its finished runs, tables in the published form, comparisons, what is missing.

``command`` is ``python -m experiments report``; it imports the others, and with them pandas, when it runs.
"""
