-- What did the epochs take of each partition: how many, how large, from which offset to which?
-- for engineers
-- reads weir_epochs
SELECT topic, partition, count() AS epochs, sum(records) AS taken, max(records) AS largest,
    min(first_offset) AS first_offset, max(next_offset) AS next_offset
FROM weir_epochs
GROUP BY topic, partition
ORDER BY topic, partition
