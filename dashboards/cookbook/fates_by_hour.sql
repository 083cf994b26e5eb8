-- What became of the records, hour by hour?
-- for engineers
-- reads weir_ledger
-- {from:DateTime('UTC')} = 1 day ago
-- {to:DateTime('UTC')} = now
SELECT toStartOfHour(minute, 'UTC') AS hour, sum(consumed) AS records, sum(accepted) AS accepted,
    sum(quarantined) AS quarantined,
    sum(duplicate + duplicate_differing) AS duplicates, sum(too_late + too_late_after_idle) AS too_late
FROM weir_ledger
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY hour
ORDER BY hour
