SELECT tenant, shoppers, countries FROM (SELECT tenant, count() AS shoppers FROM (SELECT DISTINCT tenant, user_id FROM events
WHERE type != 'heartbeat' AND user_id IS NOT NULL) GROUP BY tenant) AS a
JOIN (SELECT tenant, length(groupUniqArray(props['country'])) AS countries FROM events WHERE type != 'heartbeat' GROUP BY tenant) AS b USING (tenant)
ORDER BY shoppers DESC, tenant
