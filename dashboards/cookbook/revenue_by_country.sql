-- Which countries is the revenue from, and what is each one's share?
-- for analysts
-- reads revenue_by_minute
-- {from:DateTime('UTC')} = 7 days ago
-- {to:DateTime('UTC')} = now
-- {tenant:String} = 
SELECT country, sum(revenue) AS total, round(sum(revenue) / sum(sum(revenue)) OVER () * 100, 1) AS percent
FROM revenue_by_minute
WHERE window_start >= {from:DateTime('UTC')} AND window_start < {to:DateTime('UTC')}
  AND ({tenant:String} = '' OR tenant = {tenant:String})
GROUP BY country
HAVING total > 0
ORDER BY total DESC, country
