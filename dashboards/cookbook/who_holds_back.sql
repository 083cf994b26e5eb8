-- Which partition does each view wait for, and which are left out of its completeness?
-- for engineers
-- reads weir_progress_by_partition
SELECT view, topic, partition, state, holds_back, is_left_out, watermark, complete_through, detail
FROM weir_progress_by_partition
WHERE holds_back OR is_left_out
ORDER BY view, topic, partition
