SELECT toDate(occurred_at, 'Europe/Berlin') AS day, sdk, uniqCombined64(user_id), count()
FROM events GROUP BY day, sdk ORDER BY day, sdk
