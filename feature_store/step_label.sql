-- Whether people judged a line to be a cooking step, one row per labelled line.
SELECT step_id, is_step FROM step_labels
