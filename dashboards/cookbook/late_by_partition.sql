-- Which partitions bring records that are too late?
-- for engineers
-- reads weir_ledger
-- {from:DateTime('UTC')} = 1 day ago
-- {to:DateTime('UTC')} = now
SELECT topic, partition, sum(too_late + too_late_after_idle) AS too_late,
    round(too_late / sum(consumed) * 100, 3) AS percent
FROM weir_ledger
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY topic, partition
ORDER BY too_late DESC, topic, partition
