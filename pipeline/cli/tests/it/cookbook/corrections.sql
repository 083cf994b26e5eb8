-- columns window_start, tenant, country, revision
SELECT window_start, tenant, country, revision FROM revenue_by_minute__rows FINAL WHERE NOT (revision = 0)
ORDER BY window_start, tenant, country
