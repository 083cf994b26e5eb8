-- What is wrong now, with whom, and since when?
-- for SDK teams
-- reads weir_alerts
SELECT severity, owner, cause_kind, cause, sdk, sdk_version, app_version, reason, detail,
    round(affected_share * 100, 1) AS percent,
    opened_at, acknowledged_by
FROM weir_alerts
WHERE status != 'resolved'
ORDER BY indexOf(['critical', 'warning', 'info'], severity), opened_at, cause
