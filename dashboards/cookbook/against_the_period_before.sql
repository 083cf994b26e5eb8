-- How does a period compare with the one of the same length before it, by shop?
-- for analysts
-- reads revenue_by_minute
-- {from:DateTime('UTC')} = 7 days ago
-- {to:DateTime('UTC')} = now
WITH toUnixTimestamp({to:DateTime('UTC')}) - toUnixTimestamp({from:DateTime('UTC')}) AS seconds
SELECT
    tenant,
    sumIf(orders, window_start >= {from:DateTime('UTC')}) AS orders_now,
    sumIf(orders, window_start < {from:DateTime('UTC')}) AS orders_before,
    if(orders_before > 0, round((orders_now / orders_before - 1) * 100, 1), NULL) AS change_percent
FROM revenue_by_minute
WHERE window_start >= {from:DateTime('UTC')} - toIntervalSecond(seconds) AND window_start < {to:DateTime('UTC')}
GROUP BY tenant
ORDER BY tenant
