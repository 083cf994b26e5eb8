-- What is the median of what a purchase is worth, over a range, with least and most?
-- for analysts
-- reads purchases_by_five_minutes
-- {from:DateTime('UTC')} = 7 days ago
-- {to:DateTime('UTC')} = now
SELECT tenant, min(least) AS least, round(quantileDDMerge(0.01, 0.5)(median_state), 2) AS median, max(most) AS most
FROM purchases_by_five_minutes
WHERE window_start >= {from:DateTime('UTC')} AND window_start < {to:DateTime('UTC')}
GROUP BY tenant
ORDER BY tenant
