"""The one token loop: row stack, branches, selection, beams."""
