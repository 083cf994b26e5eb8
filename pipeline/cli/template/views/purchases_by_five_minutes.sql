-- What a purchase is worth, by five minutes and shop.
SELECT
    toStartOfFiveMinutes(occurred_at) AS window_start,
    tenant,
    min(amount) AS least,
    max(amount) AS most,
    quantileDD(0.01, 0.5)(toFloat64(amount)) AS median
FROM events
WHERE type = 'purchase'
GROUP BY window_start, tenant
