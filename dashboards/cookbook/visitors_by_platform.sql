-- How many visitors does each platform bring on a day of Berlin's calendar?
-- for analysts
-- reads visitors_by_hour__by_day
-- {from:DateTime('UTC')} = 30 days ago
-- {to:DateTime('UTC')} = now
SELECT window_start AS day, sdk, uniqCombined64Merge(visitors_state) AS visitors, sum(events) AS events
FROM visitors_by_hour__by_day
WHERE window_start BETWEEN toDate({from:DateTime('UTC')}, 'Europe/Berlin') AND toDate({to:DateTime('UTC')} - 1, 'Europe/Berlin')
GROUP BY day, sdk
ORDER BY day, sdk
