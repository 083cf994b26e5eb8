-- from=2026-01-05 23:45:00
-- to=2026-01-06 00:45:00
SELECT tenant, countIf(occurred_at >= '2026-01-05 23:45:00') AS now, countIf(occurred_at < '2026-01-05 23:45:00') AS before,
    round((now / before - 1) * 100, 1)
FROM events WHERE type = 'purchase' AND occurred_at >= '2026-01-05 22:45:00' AND occurred_at < '2026-01-06 00:45:00'
GROUP BY tenant ORDER BY tenant
