SELECT
    toStartOfMinute(occurred_at) AS window_start,
    tenant,
    props['country'] AS country,
    count() AS events,
    sumIf(amount, type = 'purchase') AS revenue,
    uniqExact(user_id) AS users
FROM events
WHERE type != 'heartbeat'
GROUP BY window_start, tenant, country
