-- Where in the log is the first record of each cause that is refused?
-- for SDK teams
-- reads weir_quarantine
-- {from:DateTime('UTC')} = 7 days ago
-- {to:DateTime('UTC')} = now
SELECT fingerprint, reason, rule, count() AS records,
    argMin(concat(topic, '/', toString(partition), '@', toString(offset)), (kafka_time, topic, partition, offset))
        AS first_place,
    argMin((sdk, sdk_version, app_version), (kafka_time, topic, partition, offset)) AS first_release
FROM weir_quarantine
WHERE kafka_time >= {from:DateTime('UTC')} AND kafka_time < {to:DateTime('UTC')}
  AND NOT startsWith(reason, 'too_late')
GROUP BY fingerprint, reason, rule
ORDER BY records DESC, fingerprint
