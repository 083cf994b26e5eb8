-- How did the alerts about a release go: opened, grew, resolved?
-- for SDK teams
-- reads weir_alerts_history
-- {sdk:String} = android
-- {sdk_version:String} = 
SELECT fingerprint, revision, status, window_start, affected_records, records,
    round(affected_share * 100, 1) AS percent
FROM weir_alerts_history
WHERE sdk = {sdk:String} AND ({sdk_version:String} = '' OR sdk_version = {sdk_version:String})
ORDER BY fingerprint, revision
