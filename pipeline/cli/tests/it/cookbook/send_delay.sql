SELECT e.sdk, e.sdk_version, e.app_version, count() AS n, arraySort(groupArray(toUnixTimestamp64Milli(r.kafka_time) - toUnixTimestamp64Milli(r.occurred_at)))[intDiv(n, 2) + 1] AS median,
    max(toUnixTimestamp64Milli(r.kafka_time) - toUnixTimestamp64Milli(r.occurred_at))
FROM events AS e JOIN raw AS r ON r.partition = e._partition AND r.offset = e._offset
GROUP BY e.sdk, e.sdk_version, e.app_version ORDER BY median DESC, e.sdk, e.sdk_version, e.app_version
