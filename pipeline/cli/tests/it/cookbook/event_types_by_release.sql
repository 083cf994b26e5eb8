SELECT a.sdk, a.sdk_version, a.app_version, a.type, a.n, round(a.n / b.n * 100, 1)
FROM (SELECT sdk, sdk_version, app_version, type, count() AS n FROM events GROUP BY ALL) AS a
JOIN (SELECT sdk, sdk_version, app_version, count() AS n FROM events GROUP BY ALL) AS b USING (sdk, sdk_version, app_version)
ORDER BY a.sdk, a.sdk_version, a.app_version, a.n DESC, a.type
