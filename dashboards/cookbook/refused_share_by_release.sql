-- What share of each release's records is refused, hour by hour?
-- for SDK teams
-- reads events, weir_quarantine
-- {from:DateTime('UTC')} = 1 day ago
-- {to:DateTime('UTC')} = now
SELECT hour, sdk, sdk_version, app_version, sum(refused) AS refused, count() AS records,
    round(refused / records * 100, 2) AS percent
FROM
(
    SELECT toStartOfHour(occurred_at, 'UTC') AS hour, sdk, sdk_version, app_version, 0 AS refused
    FROM events
    WHERE _event_time >= {from:DateTime('UTC')} AND _event_time < {to:DateTime('UTC')}
    UNION ALL
    SELECT toStartOfHour(ifNull(event_time, kafka_time), 'UTC'), sdk, sdk_version, app_version, 1
    FROM weir_quarantine
    WHERE ifNull(event_time, kafka_time) >= {from:DateTime('UTC')} AND ifNull(event_time, kafka_time) < {to:DateTime('UTC')}
      AND NOT startsWith(reason, 'too_late')
)
GROUP BY hour, sdk, sdk_version, app_version
ORDER BY hour, sdk, sdk_version, app_version
