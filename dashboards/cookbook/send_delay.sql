-- How long do events take from the device to the log, by release?
-- for SDK teams
-- reads events
-- {from:DateTime('UTC')} = 1 day ago
-- {to:DateTime('UTC')} = now
SELECT sdk, sdk_version, app_version, count() AS events,
    quantileExact(0.5)(dateDiff('millisecond', _event_time, _kafka_time)) AS median_ms,
    max(dateDiff('millisecond', _event_time, _kafka_time)) AS most_ms
FROM events
WHERE _event_time >= {from:DateTime('UTC')} AND _event_time < {to:DateTime('UTC')}
GROUP BY sdk, sdk_version, app_version
ORDER BY median_ms DESC, sdk, sdk_version, app_version
