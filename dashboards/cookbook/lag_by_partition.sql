-- How far behind the end of the log is each partition?
-- for engineers
-- reads weir_partitions
SELECT source, topic, partition, end_offset - next_offset AS lag_records, state, watermark
FROM weir_partitions
ORDER BY lag_records DESC, topic, partition
