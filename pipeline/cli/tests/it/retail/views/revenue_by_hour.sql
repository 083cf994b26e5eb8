SELECT
    toStartOfHour(InvoiceDate) AS hour,
    Country,
    sum(Quantity * UnitPrice) AS revenue,
    count() AS lines,
    avg(Quantity) AS mean_quantity
FROM sales
GROUP BY hour, Country
