"""Folders that tests read."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
GOLDEN = SHARED / "golden"
PUBLISHED = SHARED / "published"

needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs ../shared/golden (reference values)")
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs ../shared/published (published facts)")
