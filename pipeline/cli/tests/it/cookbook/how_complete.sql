-- columns view, complete_through, lag_seconds
SELECT arrayJoin(['purchases_by_five_minutes', 'revenue_by_minute', 'visitors_by_hour']) AS view, '2299-12-31 23:59:59.999999', 0
