SELECT tenant, min(amount), round(quantileDD(0.01, 0.5)(toFloat64(amount)), 2), max(amount)
FROM events WHERE type = 'purchase' GROUP BY tenant ORDER BY tenant
