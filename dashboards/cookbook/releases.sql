-- Which releases are out there, since when, and how healthy is each?
-- for SDK teams
-- reads weir_releases
-- {tenant:String} = 
SELECT tenant, sdk, sdk_version, app_version, first_seen_at, events, refused, round(share * 100, 1) AS percent,
    round(refused_share * 100, 2) AS refused_percent, open_alerts
FROM weir_releases
WHERE ({tenant:String} = '' OR tenant = {tenant:String})
ORDER BY refused_share DESC, tenant, sdk, sdk_version, app_version
