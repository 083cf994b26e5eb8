-- Who sends events more than once, and how often?
-- for engineers
-- reads weir_ledger
-- {from:DateTime('UTC')} = 1 day ago
-- {to:DateTime('UTC')} = now
SELECT tenant, sum(duplicate + duplicate_differing) AS duplicates,
    round(duplicates / sum(consumed) * 100, 2) AS percent
FROM weir_ledger
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY tenant
HAVING duplicates > 0
ORDER BY duplicates DESC, tenant
