-- Which rules are broken, by which releases, how often?
-- for SDK teams
-- reads weir_quarantine
-- {from:DateTime('UTC')} = 7 days ago
-- {to:DateTime('UTC')} = now
SELECT rule, owner, sdk, sdk_version, app_version, count() AS records, min(found) AS found, any(expected) AS expected
FROM weir_quarantine
WHERE kafka_time >= {from:DateTime('UTC')} AND kafka_time < {to:DateTime('UTC')}
  AND NOT startsWith(reason, 'too_late') AND rule != ''
GROUP BY rule, owner, sdk, sdk_version, app_version
ORDER BY records DESC, rule, sdk, sdk_version, app_version
