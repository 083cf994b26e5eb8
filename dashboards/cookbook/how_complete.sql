-- Up to when is each view complete, and how long ago was that?
-- for analysts
-- reads weir_progress
SELECT view, complete_through, final_through, round(lag_ms / 1000) AS lag_seconds, held_back_by
FROM weir_progress
ORDER BY view
