SELECT toStartOfInterval(occurred_at, INTERVAL 1 HOUR) AS window_start, tenant, count() AS events
FROM events GROUP BY window_start, tenant
