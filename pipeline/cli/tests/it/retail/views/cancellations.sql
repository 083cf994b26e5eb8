SELECT
    toStartOfInterval(InvoiceDate, INTERVAL 1 HOUR) AS hour,
    if(Country = 'United Kingdom', 'home', 'abroad') AS market,
    countIf(startsWith(InvoiceNo, 'C')) AS cancelled,
    sumIf(Quantity, InvoiceNo LIKE 'C%') AS pieces,
    sumIf(toFloat64(UnitPrice) * Quantity, startsWith(InvoiceNo, 'C')) AS value,
    quantileDD(0.01, 0.9)(toFloat64(UnitPrice)) AS dear
FROM sales
WHERE Description IS NOT NULL AND Country NOT IN ('Unspecified', 'European Community')
GROUP BY hour, market
