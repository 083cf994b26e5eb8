SELECT
    toStartOfInterval(occurred_at, INTERVAL 1 MINUTE) AS window_start,
    tenant,
    type,
    count() AS events,
    sum(amount) AS turnover,
    uniqExact(user_id) AS users
FROM events
GROUP BY window_start, tenant, type
