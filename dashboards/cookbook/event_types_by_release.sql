-- Which event types does each release send, and is one missing?
-- for SDK teams
-- reads events
-- {from:DateTime('UTC')} = 1 day ago
-- {to:DateTime('UTC')} = now
SELECT sdk, sdk_version, app_version, type, count() AS events,
    round(events / sum(events) OVER (PARTITION BY sdk, sdk_version, app_version) * 100, 1) AS percent
FROM events
WHERE _event_time >= {from:DateTime('UTC')} AND _event_time < {to:DateTime('UTC')}
GROUP BY sdk, sdk_version, app_version, type
ORDER BY sdk, sdk_version, app_version, events DESC, type
