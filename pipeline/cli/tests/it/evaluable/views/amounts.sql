SELECT
    toStartOfMinute(occurred_at) AS window_start,
    tenant,
    count() AS events,
    sum(toInt64(amount)) AS total,
    uniqExact(if(kind = 'dated', toDate(day), toDate('2026-01-01'))) AS days
FROM events
WHERE kind != 'ignored'
GROUP BY window_start, tenant
