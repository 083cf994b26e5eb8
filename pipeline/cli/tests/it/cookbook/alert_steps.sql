-- The last window was judged when the first run ended, before all of it had come.
-- only window_start < '2026-01-06 00:40:00'
SELECT h.fingerprint, h.revision, h.status, h.window_start, countIf(is_bad) AS affected, count() AS records, round(affected / records * 100, 1)
FROM (SELECT * FROM weir_alerts_history__rows FINAL) AS h
JOIN
(
    SELECT occurred_at AS time, tenant, sdk, sdk_version, app_version, false AS is_bad FROM events
    UNION ALL
    SELECT ifNull(event_time, kafka_time), tenant, sdk, sdk_version, app_version, true
    FROM weir_quarantine__rows FINAL WHERE reason NOT LIKE 'too_late%'
) AS r ON r.sdk = h.sdk AND r.sdk_version = h.sdk_version AND r.app_version = h.app_version
WHERE r.time >= h.window_start AND r.time < h.window_end AND has(h.tenants, r.tenant) AND h.sdk = 'android' AND h.window_start < '2026-01-06 00:40:00'
GROUP BY h.fingerprint, h.revision, h.status, h.window_start ORDER BY h.fingerprint, h.revision
