-- columns partition, lag_records
SELECT partition, 0 FROM raw GROUP BY partition ORDER BY partition
