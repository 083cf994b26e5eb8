SELECT hour, sdk, sdk_version, app_version, bad, good + bad, round(bad / (good + bad) * 100, 2) FROM
(SELECT toStartOfHour(occurred_at, 'UTC') AS hour, sdk, sdk_version, app_version, count() AS good FROM events GROUP BY ALL) AS g
FULL JOIN (SELECT toStartOfHour(ifNull(event_time, kafka_time), 'UTC') AS hour, sdk, sdk_version, app_version, count() AS bad
    FROM weir_quarantine__rows FINAL WHERE reason NOT LIKE 'too_late%' GROUP BY ALL) AS b USING (hour, sdk, sdk_version, app_version)
ORDER BY hour, sdk, sdk_version, app_version
