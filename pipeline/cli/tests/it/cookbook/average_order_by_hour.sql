SELECT toStartOfHour(occurred_at, 'UTC') AS hour, count() AS sold, round(sum(amount) / sold, 2)
FROM events WHERE type = 'purchase' GROUP BY hour ORDER BY hour
