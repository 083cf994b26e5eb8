WITH people AS (SELECT DISTINCT sdk, app_version, tenant, user_id FROM events WHERE user_id IS NOT NULL)
SELECT p.sdk, p.app_version, p.n, round(p.n / w.n * 100, 1)
FROM (SELECT sdk, app_version, count() AS n FROM people GROUP BY ALL) AS p
JOIN (SELECT sdk, count() AS n FROM people GROUP BY ALL) AS w ON w.sdk = p.sdk
ORDER BY p.sdk, p.n DESC, p.app_version
