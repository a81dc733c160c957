"""How fast rows are scored and written, beside what one would write instead; see docs/performance.md."""
