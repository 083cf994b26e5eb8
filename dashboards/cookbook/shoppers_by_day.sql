-- How many different people came on each day, by shop? (Distinct counts are merged, never added.)
-- for analysts
-- reads revenue_by_minute__by_day
-- {from:DateTime('UTC')} = 30 days ago
-- {to:DateTime('UTC')} = now
-- {tenant:String} = 
SELECT window_start AS day, tenant, uniqExactMerge(users_state) AS shoppers
FROM revenue_by_minute__by_day
WHERE window_start BETWEEN toDate({from:DateTime('UTC')}) AND toDate({to:DateTime('UTC')} - 1)
  AND ({tenant:String} = '' OR tenant = {tenant:String})
GROUP BY day, tenant
ORDER BY day, tenant
