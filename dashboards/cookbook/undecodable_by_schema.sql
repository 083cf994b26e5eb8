-- Which writer schemas do records claim that can't be decoded, and what is wrong with their bytes?
-- for SDK teams
-- reads weir_quarantine
-- {from:DateTime('UTC')} = 7 days ago
-- {to:DateTime('UTC')} = now
SELECT schema_id, reason, detail, count() AS records
FROM weir_quarantine
WHERE kafka_time >= {from:DateTime('UTC')} AND kafka_time < {to:DateTime('UTC')}
  AND NOT startsWith(reason, 'too_late') AND rule = ''
GROUP BY schema_id, reason, detail
ORDER BY records DESC, reason, detail, schema_id
