-- How far has each app version got among the people of its platform?
-- for SDK teams
-- reads events
-- {from:DateTime('UTC')} = 1 day ago
-- {to:DateTime('UTC')} = now
SELECT sdk, app_version, uniqExact(tenant, user_id) AS people,
    round(people / sum(people) OVER (PARTITION BY sdk) * 100, 1) AS percent
FROM events
WHERE _event_time >= {from:DateTime('UTC')} AND _event_time < {to:DateTime('UTC')} AND user_id IS NOT NULL
GROUP BY sdk, app_version
ORDER BY sdk, people DESC, app_version
