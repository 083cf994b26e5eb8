-- Who was there, by hour of Berlin's day, shop and app. Distinct counts merge: sum nothing, use uniqMerge.
SELECT
    toStartOfHour(occurred_at, 'Europe/Berlin') AS window_start,
    tenant,
    sdk,
    count() AS events,
    uniqCombined64(user_id) AS visitors
FROM events
GROUP BY window_start, tenant, sdk
