-- columns cause_kind, cause, sdk, sdk_version, app_version, percent, opened_at
SELECT argMax(cause_kind, revision), argMax(cause, revision) AS c, argMax(sdk, revision), argMax(sdk_version, revision), argMax(app_version, revision),
    round(argMax(affected_share, revision) * 100, 1), argMax(opened_at, revision) AS at
FROM weir_alerts_history__rows GROUP BY fingerprint HAVING argMax(status, revision) != 'resolved'
ORDER BY indexOf(['critical', 'warning', 'info'], argMax(severity, revision)), at, c
