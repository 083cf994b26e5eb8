SELECT tenant, minute, orders, revenue FROM
(
    SELECT tenant, toStartOfMinute(occurred_at, 'UTC') AS minute, countIf(type = 'purchase') AS orders, sumIf(amount, type = 'purchase') AS revenue,
        row_number() OVER (PARTITION BY tenant ORDER BY countIf(type = 'purchase') DESC, toStartOfMinute(occurred_at, 'UTC')) AS place
    FROM events WHERE type != 'heartbeat' GROUP BY tenant, minute
)
WHERE place <= 3 ORDER BY tenant, place
