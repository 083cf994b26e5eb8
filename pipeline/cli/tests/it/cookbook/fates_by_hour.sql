SELECT toStartOfHour(time, 'UTC') AS hour, count(), countIf(is_event), countIf(reason != '' AND reason NOT LIKE 'too_late%'),
    countIf(reason = '' AND NOT is_event), countIf(reason LIKE 'too_late%')
FROM (
    SELECT r.partition AS partition, r.offset AS offset, r.tenant AS tenant, q.reason AS reason, e.is_event AS is_event,
        multiIf(e.is_event, e.time, q.reason != '', ifNull(q.event_time, toDateTime64(r.kafka_time, 6)), r.occurred_at) AS time
    FROM raw AS r
    LEFT JOIN (SELECT partition, offset, reason, rule, event_time FROM weir_quarantine__rows FINAL) AS q ON q.partition = r.partition AND q.offset = r.offset
    LEFT JOIN (SELECT _partition, _offset, occurred_at AS time, true AS is_event FROM events) AS e ON e._partition = r.partition AND e._offset = r.offset
) GROUP BY hour ORDER BY hour
