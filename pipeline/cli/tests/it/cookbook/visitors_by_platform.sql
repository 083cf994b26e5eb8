-- from=2026-01-05 23:10:00
SELECT toDate(occurred_at, 'Europe/Berlin') AS day, sdk, uniqCombined64(user_id), count()
FROM events WHERE day >= '2026-01-06' GROUP BY day, sdk ORDER BY day, sdk
