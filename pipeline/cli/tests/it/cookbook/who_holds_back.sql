-- columns view, partition, is_left_out
SELECT view, partition, true FROM (SELECT arrayJoin(['purchases_by_five_minutes', 'revenue_by_minute', 'visitors_by_hour']) AS view) AS v
CROSS JOIN (SELECT DISTINCT partition FROM raw) AS p ORDER BY view, partition
