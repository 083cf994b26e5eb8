-- columns partition, taken, first_offset, next_offset
SELECT partition, count(), min(offset), max(offset) + 1 FROM raw GROUP BY partition ORDER BY partition
