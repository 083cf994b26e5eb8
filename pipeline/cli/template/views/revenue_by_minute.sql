-- What came in, by minute, shop and country.
SELECT
    toStartOfInterval(occurred_at, INTERVAL 1 MINUTE) AS window_start,
    tenant,
    props['country'] AS country,
    countIf(type = 'purchase') AS orders,
    sumIf(amount, type = 'purchase') AS revenue,
    uniqExact(user_id) AS users
FROM events
WHERE type != 'heartbeat'
GROUP BY window_start, tenant, country
