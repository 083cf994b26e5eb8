-- columns tenant, sdk, sdk_version, app_version, events, refused, percent, refused_percent, open_alerts
WITH counted AS (
    SELECT tenant, sdk, sdk_version, app_version, sum(good) AS events, count() - events AS refused FROM
    (
        SELECT tenant, sdk, sdk_version, app_version, 1 AS good FROM events
        UNION ALL
        SELECT tenant, sdk, sdk_version, app_version, 0 FROM weir_quarantine__rows FINAL WHERE reason NOT LIKE 'too_late%'
    )
    GROUP BY tenant, sdk, sdk_version, app_version
)
SELECT tenant, sdk, sdk_version, app_version, events, refused, round((events + refused) / whole * 100, 1),
    round(refused / (events + refused) * 100, 2),
    ifNull(alerts, 0)
FROM counted
JOIN (SELECT tenant, sum(events + refused) AS whole FROM counted GROUP BY tenant) AS w USING (tenant)
LEFT JOIN
(
    SELECT tenant, sdk, sdk_version, app_version, count() AS alerts FROM
    (
        SELECT fingerprint, argMax(tenants, revision) AS t, argMax(sdk, revision) AS sdk, argMax(sdk_version, revision) AS sdk_version,
            argMax(app_version, revision) AS app_version, argMax(status, revision) AS last
        FROM weir_alerts_history__rows GROUP BY fingerprint
    )
    ARRAY JOIN t AS tenant WHERE last != 'resolved' GROUP BY tenant, sdk, sdk_version, app_version
) AS a USING (tenant, sdk, sdk_version, app_version)
ORDER BY refused / (events + refused) DESC, tenant, sdk, sdk_version, app_version
