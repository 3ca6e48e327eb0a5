"""Statistics, tables, figures and the page, made from the files of a run alone."""
