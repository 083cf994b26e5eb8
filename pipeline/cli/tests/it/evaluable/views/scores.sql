SELECT
    toStartOfMinute(occurred_at) AS window_start,
    kind,
    quantileDD(0.01, 0.5)(toFloat64(score)) AS median,
    max(price * price) AS squared
FROM events
GROUP BY window_start, kind
