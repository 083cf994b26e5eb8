-- columns table, rows
-- only table IN ('events__rows', 'weir_ledger__rows') ORDER BY table
SELECT 'events__rows', count() FROM events__rows UNION ALL SELECT 'weir_ledger__rows', count() FROM weir_ledger__rows
