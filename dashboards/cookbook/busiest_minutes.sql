-- Which were the busiest minutes of each shop?
-- for analysts
-- reads revenue_by_minute
-- {from:DateTime('UTC')} = 1 day ago
-- {to:DateTime('UTC')} = now
SELECT tenant, window_start, sum(orders) AS orders, sum(revenue) AS revenue
FROM revenue_by_minute
WHERE window_start >= {from:DateTime('UTC')} AND window_start < {to:DateTime('UTC')}
GROUP BY tenant, window_start
ORDER BY tenant, orders DESC, window_start
LIMIT 3 BY tenant
