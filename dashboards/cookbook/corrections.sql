-- Which windows were corrected by late events after they had closed?
-- for analysts
-- reads revenue_by_minute
-- {from:DateTime('UTC')} = 1 day ago
-- {to:DateTime('UTC')} = now
SELECT window_start, tenant, country, revision, is_final
FROM revenue_by_minute
WHERE window_start >= {from:DateTime('UTC')} AND window_start < {to:DateTime('UTC')} AND revision > 0
ORDER BY window_start, tenant, country
