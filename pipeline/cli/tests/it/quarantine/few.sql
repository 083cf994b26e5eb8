SELECT toStartOfMinute(occurred_at) AS window_start, tenant, count() AS events
FROM events GROUP BY window_start, tenant HAVING events <= 2
