-- columns source, records, accounted, is_balanced
SELECT 'events', count(), count(), 1 FROM raw
