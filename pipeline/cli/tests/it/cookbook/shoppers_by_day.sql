SELECT day, tenant, count() FROM (SELECT DISTINCT toDate(occurred_at, 'UTC') AS day, tenant, user_id FROM events
WHERE type != 'heartbeat' AND user_id IS NOT NULL) GROUP BY day, tenant ORDER BY day, tenant
