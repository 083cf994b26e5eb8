-- How many different people came over a whole range, by shop, and in how many countries?
-- for analysts
-- reads revenue_by_minute
-- {from:DateTime('UTC')} = 7 days ago
-- {to:DateTime('UTC')} = now
SELECT tenant, uniqExactMerge(users_state) AS shoppers, uniqExact(country) AS countries
FROM revenue_by_minute
WHERE window_start >= {from:DateTime('UTC')} AND window_start < {to:DateTime('UTC')}
GROUP BY tenant
ORDER BY shoppers DESC, tenant
