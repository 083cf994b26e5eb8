SELECT schema_id, reason, detail, uniqExact(topic, partition, offset) AS n FROM weir_quarantine__rows
WHERE reason NOT LIKE 'too_late%' AND reason != 'rule' GROUP BY ALL ORDER BY n DESC, reason, detail, schema_id
