SELECT fingerprint, reason, rule, n, concat(topic, '/', toString(partition), '@', toString(offset)), (sdk, sdk_version, app_version) FROM
(
    SELECT *, count() OVER (PARTITION BY fingerprint) AS n, row_number() OVER (PARTITION BY fingerprint ORDER BY kafka_time, topic, partition, offset) AS place
    FROM weir_quarantine__rows FINAL WHERE reason NOT LIKE 'too_late%'
)
WHERE place = 1 ORDER BY n DESC, fingerprint
