SELECT toStartOfMinute(occurred_at) AS window_start, tenant, count() AS events, sum(amount) AS paid,
       countIf(match(code, '^[A-Z]{2}-\\d+$')) AS regular_codes
FROM events GROUP BY window_start, tenant
