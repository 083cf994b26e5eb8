SELECT
    toStartOfInterval(InvoiceDate, INTERVAL 1 DAY, 'Europe/London') AS day,
    upper(StockCode) AS product,
    sum(Quantity) AS sold,
    countIf(Quantity < 0) AS returns,
    uniqExactIf(CustomerID, Quantity > 0) AS buyers
FROM sales
WHERE length(StockCode) >= 5
GROUP BY day, product
HAVING sold > 0
