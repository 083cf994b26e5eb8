-- What is in the quarantine, by reason?
-- for engineers
-- reads weir_quarantine
-- {from:DateTime('UTC')} = 7 days ago
-- {to:DateTime('UTC')} = now
SELECT reason, count() AS records, uniqExact(fingerprint) AS causes, min(kafka_time) AS first_at,
    max(kafka_time) AS last_at
FROM weir_quarantine
WHERE kafka_time >= {from:DateTime('UTC')} AND kafka_time < {to:DateTime('UTC')}
GROUP BY reason
ORDER BY records DESC, reason
