-- What is an order worth on average, hour by hour?
-- for analysts
-- reads revenue_by_minute__by_hour
-- {from:DateTime('UTC')} = 1 day ago
-- {to:DateTime('UTC')} = now
-- {tenant:String} = 
SELECT window_start AS hour, sum(orders) AS sold, round(sum(revenue) / sum(orders), 2) AS average_order
FROM revenue_by_minute__by_hour
WHERE window_start >= {from:DateTime('UTC')} AND window_start < {to:DateTime('UTC')}
  AND ({tenant:String} = '' OR tenant = {tenant:String})
GROUP BY hour
HAVING sold > 0
ORDER BY hour
