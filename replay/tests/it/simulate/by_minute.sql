SELECT
    toStartOfMinute(occurred_at) AS window_start,
    tenant,
    count() AS events,
    sumIf(amount, type = 'purchase') AS revenue,
    uniqExact(user_id) AS users,
    avg(toFloat64(amount)) AS mean,
    quantileDD(0.01, 0.5)(toFloat64(amount)) AS median
FROM events
GROUP BY window_start, tenant
