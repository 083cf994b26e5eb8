SELECT toDate(occurred_at, 'UTC') AS day, tenant, countIf(type = 'purchase'), sumIf(amount, type = 'purchase'), true
FROM events WHERE type != 'heartbeat' GROUP BY day, tenant ORDER BY day, tenant
