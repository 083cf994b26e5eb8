-- Did every record that came in end somewhere? An imbalance is a bug.
-- for engineers
-- reads weir_ledger
SELECT source, topic, sum(consumed) AS records,
    sum(accepted + quarantined + duplicate + duplicate_differing + too_late + too_late_after_idle + tombstone)
        AS accounted,
    records = accounted AS is_balanced
FROM weir_ledger
GROUP BY source, topic
ORDER BY source, topic
