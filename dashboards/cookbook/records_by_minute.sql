-- How many records does an event-time minute bring, and which minutes stand out?
-- for engineers
-- reads weir_ledger
-- {from:DateTime('UTC')} = 1 day ago
-- {to:DateTime('UTC')} = now
SELECT minute, sum(consumed) AS records, round(records / avg(sum(consumed)) OVER (), 2) AS times_the_mean
FROM weir_ledger
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY minute
ORDER BY records DESC, minute
LIMIT 20
