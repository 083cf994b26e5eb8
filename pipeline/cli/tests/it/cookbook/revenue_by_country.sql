SELECT props['country'] AS country, sum(amount) AS total,
    round(total / (SELECT sum(amount) FROM events WHERE type = 'purchase') * 100, 1)
FROM events WHERE type = 'purchase' GROUP BY country HAVING total > 0 ORDER BY total DESC, country
